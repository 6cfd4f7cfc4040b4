//! Makes archives byte by byte, right or wrong.

use std::os::unix::fs::MetadataExt as _;

/// An archive being forged.
#[derive(Debug, Default)]
pub struct Forge(Vec<u8>);

/// A header being forged. Owners are those of whoever runs the test, so that anybody can unpack.
#[derive(Debug)]
pub struct Head([u8; 512]);

impl Head {
    /// One of this type and name, without content.
    pub fn new(flag: u8, name: &[u8]) -> Self {
        let mut head = Self([0; 512]);
        head.put(257, b"ustar\x0000");
        head.0[156] = flag;
        assert!(name.len() <= 100, "a longer name needs an extended header");
        head.put(0, name);
        let own = std::fs::metadata("/proc/self").expect("a process has an entry");
        head.octal(100, 8, if flag == b'5' { 0o755 } else { 0o644 });
        head.octal(108, 8, own.uid().into());
        head.octal(116, 8, own.gid().into());
        head.octal(124, 12, 0);
        head.octal(136, 12, 1_000_000_000);
        head
    }

    /// Writes bytes at a place.
    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Writes a number as headers have it: octal, ended by a zero.
    pub fn octal(&mut self, at: usize, length: usize, value: u64) {
        self.put(at, format!("{value:0width$o}\0", width = length - 1).as_bytes());
    }

    /// The block, with its checksum.
    pub fn sum(mut self) -> [u8; 512] {
        self.put(148, b"        ");
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
        self.put(148, format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

impl Forge {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes as they are.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// A header, with what `change` does to it before it is summed up.
    #[must_use]
    pub fn head(self, flag: u8, name: &[u8], change: impl FnOnce(&mut Head)) -> Self {
        let mut head = Head::new(flag, name);
        change(&mut head);
        let block = head.sum();
        self.raw(&block)
    }

    /// Content in whole blocks.
    #[must_use]
    pub fn body(self, content: &[u8]) -> Self {
        let padding = content.len().next_multiple_of(512) - content.len();
        self.raw(content).raw(&vec![0; padding])
    }

    /// A file.
    #[must_use]
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        let size = content.len() as u64;
        self.head(b'0', name.as_bytes(), |head| head.octal(124, 12, size)).body(content)
    }

    /// A directory.
    #[must_use]
    pub fn dir(self, name: &str) -> Self {
        self.head(b'5', name.as_bytes(), |_| ())
    }

    /// A symbolic link.
    #[must_use]
    pub fn link(self, name: &str, target: &str) -> Self {
        self.head(b'2', name.as_bytes(), |head| head.put(157, target.as_bytes()))
    }

    /// A hard link.
    #[must_use]
    pub fn hardlink(self, name: &str, target: &str) -> Self {
        self.head(b'1', name.as_bytes(), |head| head.put(157, target.as_bytes()))
    }

    /// A device node, or a pipe.
    #[must_use]
    pub fn device(self, flag: u8, name: &str, major: u64, minor: u64) -> Self {
        self.head(flag, name.as_bytes(), |head| {
            head.octal(329, 8, major);
            head.octal(337, 8, minor);
        })
    }

    /// An extended header with these records.
    #[must_use]
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (1..8)
                .map(|digits| rest + digits)
                .find(|n| n.to_string().len() + rest == *n)
                .expect("records are short");
            body.extend_from_slice(format!("{length} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.extended(b'x', &body)
    }

    /// Any header that belongs to the next entry.
    #[must_use]
    pub fn extended(self, flag: u8, body: &[u8]) -> Self {
        let size = body.len() as u64;
        self.head(flag, b"././@LongLink", |head| head.octal(124, 12, size)).body(body)
    }

    /// The whole archive.
    pub fn end(self) -> Vec<u8> {
        self.raw(&[0; 1024]).0
    }

    /// Stops without an end.
    pub fn cut(self) -> Vec<u8> {
        self.0
    }
}
