//! Makes archives byte by byte, right or wrong.

/// An archive being forged.
#[derive(Default)]
pub(crate) struct Forge(Vec<u8>);

/// A header being forged. Owners are those of whoever runs the test, so that anybody can unpack.
pub(crate) struct Head([u8; 512]);

impl Head {
    pub(crate) fn new(flag: u8, name: &[u8]) -> Self {
        let mut head = Self([0; 512]);
        head.put(257, b"ustar\x0000");
        head.0[156] = flag;
        head.put(0, &name[..name.len().min(100)]);
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        head.octal(100, 8, if flag == b'5' { 0o755 } else { 0o644 });
        head.octal(108, 8, uid.into());
        head.octal(116, 8, gid.into());
        head.octal(124, 12, 0);
        head.octal(136, 12, 1_000_000_000);
        head
    }

    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn octal(&mut self, at: usize, length: usize, value: u64) {
        self.put(at, format!("{value:0width$o}\0", width = length - 1).as_bytes());
    }

    pub(crate) fn sum(mut self) -> [u8; 512] {
        self.put(148, b"        ");
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
        self.put(148, format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

impl Forge {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// A header, with what `change` does to it before it is summed up.
    pub(crate) fn head(self, flag: u8, name: &[u8], change: impl FnOnce(&mut Head)) -> Self {
        let mut head = Head::new(flag, name);
        change(&mut head);
        let block = head.sum();
        self.raw(&block)
    }

    /// Content in whole blocks.
    pub(crate) fn body(self, content: &[u8]) -> Self {
        let padding = content.len().next_multiple_of(512) - content.len();
        self.raw(content).raw(&vec![0; padding])
    }

    pub(crate) fn file(self, name: &str, content: &str) -> Self {
        let size = content.len() as u64;
        self.head(b'0', name.as_bytes(), |head| head.octal(124, 12, size)).body(content.as_bytes())
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        self.head(b'5', name.as_bytes(), |_| ())
    }

    pub(crate) fn link(self, name: &str, target: &str) -> Self {
        self.head(b'2', name.as_bytes(), |head| head.put(157, target.as_bytes()))
    }

    pub(crate) fn hardlink(self, name: &str, target: &str) -> Self {
        self.head(b'1', name.as_bytes(), |head| head.put(157, target.as_bytes()))
    }

    pub(crate) fn device(self, flag: u8, name: &str, major: u64, minor: u64) -> Self {
        self.head(flag, name.as_bytes(), |head| {
            head.octal(329, 8, major);
            head.octal(337, 8, minor);
        })
    }

    /// An extended header with these records.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (1..8).map(|digits| rest + digits).find(|n| n.to_string().len() + rest == *n).unwrap();
            body.extend_from_slice(format!("{length} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.extended(b'x', &body)
    }

    /// Any header that belongs to the next entry.
    pub(crate) fn extended(self, flag: u8, body: &[u8]) -> Self {
        let size = body.len() as u64;
        self.head(flag, b"././@LongLink", |head| head.octal(124, 12, size)).body(body)
    }

    pub(crate) fn end(self) -> Vec<u8> {
        self.raw(&[0; 1024]).0
    }

    /// Stops without an end.
    pub(crate) fn cut(self) -> Vec<u8> {
        self.0
    }
}
