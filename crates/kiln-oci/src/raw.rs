//! A parsed value beside the very bytes it came from.

use serde::{Serialize, de::DeserializeOwned};

use crate::Digest;

/// A document and its bytes. Digests are of the bytes; they are never made again from the value.
#[derive(Debug, Clone, PartialEq)]
pub struct Raw<T> {
    bytes: Vec<u8>,
    value: T,
}

impl<T: DeserializeOwned> Raw<T> {
    /// Parses received bytes and keeps them.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, serde_json::Error> {
        let value = serde_json::from_slice(&bytes)?;
        Ok(Self { bytes, value })
    }
}

impl<T: Serialize> Raw<T> {
    /// Serialises a document of our own making: compact JSON, fields in declaration order.
    pub fn new(value: T) -> Self {
        let bytes = serde_json::to_vec(&value).expect("plain data with string keys serialises");
        Self { bytes, value }
    }
}

impl<T> Raw<T> {
    /// The bytes as received or first written.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The parsed value.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// The digest of the bytes.
    pub fn digest(&self) -> Digest {
        Digest::sha256(&self.bytes)
    }

    /// The parts.
    pub fn into_parts(self) -> (Vec<u8>, T) {
        (self.bytes, self.value)
    }
}
