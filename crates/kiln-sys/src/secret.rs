//! Bytes that are wiped when they are no longer needed, and that no log shows.

use std::fmt;
use std::sync::atomic::{Ordering, compiler_fence};

/// Secret bytes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes bytes. What the vector held beyond its length is wiped too, what it was copied from is not.
    pub fn new(bytes: Vec<u8>) -> Self {
        Secret(bytes)
    }

    /// Shows the bytes to code that needs them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Secret {
    fn from(bytes: Vec<u8>) -> Self {
        Secret::new(bytes)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        for byte in self.0.spare_capacity_mut() {
            byte.write(0);
        }
        wipe(&mut self.0);
    }
}

/// Overwrites bytes in a way the compiler cannot leave out.
pub fn wipe(bytes: &mut [u8]) {
    for byte in bytes {
        // SAFETY: `byte` is a unique reference to a valid byte.
        unsafe { std::ptr::write_volatile(byte, 0) };
    }
    compiler_fence(Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_wiped() {
        let mut bytes = *b"very secret";
        wipe(&mut bytes);
        assert_eq!(bytes, [0; 11]);
    }

    #[test]
    fn debug_shows_no_byte() {
        assert_eq!(format!("{:?}", Secret::new(b"very secret".to_vec())), "Secret(11 bytes)");
    }
}
