//! Checks size and digest of content while it streams by.

use kiln_oci::{Descriptor, Digest, Hasher};
use sha2::Digest as _;

use crate::{Error, Result};

/// A running check of bytes against a descriptor.
#[derive(Clone)]
pub struct Verifier {
    seen: u64,
    hash: Hash,
}

#[derive(Clone)]
enum Hash {
    Sha256(Hasher),
    Sha512(Box<sha2::Sha512>),
}

impl Verifier {
    /// A check for content of this digest's algorithm.
    pub fn new(digest: &Digest) -> Self {
        let hash = match digest.algorithm() {
            "sha512" => Hash::Sha512(Box::default()),
            _ => Hash::Sha256(Hasher::new()),
        };
        Self { seen: 0, hash }
    }

    /// Goes on with a check whose first `seen` bytes went into `hasher`; of content with a SHA-256 digest.
    pub fn continuing(hasher: Hasher, seen: u64) -> Self {
        Self { seen, hash: Hash::Sha256(hasher) }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.seen += bytes.len() as u64;
        match &mut self.hash {
            Hash::Sha256(hasher) => hasher.update(bytes),
            Hash::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// How many bytes it has taken.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// The digest of all bytes taken so far.
    pub fn digest(self) -> Digest {
        match self.hash {
            Hash::Sha256(hasher) => hasher.finish(),
            Hash::Sha512(hasher) => {
                let hex: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
                format!("sha512:{hex}").parse().expect("128 hex digits are a digest")
            }
        }
    }

    /// Checks that the bytes taken are exactly what `want` names.
    pub fn finish(self, doing: &str, want: &Digest) -> Result<()> {
        let got = self.digest();
        if got == *want {
            return Ok(());
        }
        Err(Error::Digest { doing: doing.into(), got, want: want.clone() })
    }
}

/// Checks bytes held in memory.
pub fn verify(doing: &str, descriptor: &Descriptor, bytes: &[u8]) -> Result<()> {
    if bytes.len() as u64 != descriptor.size {
        return Err(Error::Size { doing: doing.into(), got: bytes.len().to_string(), want: descriptor.size });
    }
    let mut verifier = Verifier::new(&descriptor.digest);
    verifier.update(bytes);
    verifier.finish(doing, &descriptor.digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_algorithms_are_checked() {
        let long = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                    2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
        for digest in [Digest::sha256("abc"), long.parse().unwrap()] {
            let mut descriptor = Descriptor::new("x", digest, 3);
            verify("read", &descriptor, b"abc").unwrap();
            assert!(matches!(verify("read", &descriptor, b"abd"), Err(Error::Digest { .. })));
            descriptor.size = 4;
            assert!(matches!(verify("read", &descriptor, b"abc"), Err(Error::Size { .. })));
        }
    }
}
