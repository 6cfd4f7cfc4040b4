//! Reading PAX records, strictly.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use kiln_sys::metadata::Timestamp;

/// What the records before an entry say about it.
#[derive(Debug, Default, Clone)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) xattrs: Vec<(OsString, Vec<u8>)>,
    pub(super) sparse: PaxSparse,
}

/// GNU's records about sparse files, versions 0.0, 0.1 and 1.0.
#[derive(Debug, Default, Clone)]
pub(super) struct PaxSparse {
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    /// Version 1.0: the map stands before the data.
    pub(super) map_in_data: bool,
    /// Versions 0.0 and 0.1.
    pub(super) map: Option<Vec<(u64, u64)>>,
    half: Option<u64>,
    major: Option<u64>,
}

impl PaxSparse {
    pub(super) fn is_used(&self) -> bool {
        self.map_in_data || self.map.is_some() || self.name.is_some()
    }
}

/// Reads the records of a header that belongs to the next entry.
pub(super) fn parse(bytes: &[u8]) -> Result<Pax, &'static str> {
    let mut pax = Pax::default();
    for record in Records(bytes) {
        let (key, value) = record?;
        pax.take(key, value)?;
    }
    if pax.sparse.half.is_some() {
        return Err("a sparse offset without its length");
    }
    pax.xattrs.sort();
    pax.xattrs.dedup_by(|later, earlier| later.0 == earlier.0);
    Ok(pax)
}

/// Says whether the records of a global header would change where entries begin or what they are called. Readers
/// disagree on those, so they are not to be read in one way silently.
pub(super) fn is_global_ambiguous(bytes: &[u8]) -> Result<bool, &'static str> {
    for record in Records(bytes) {
        let (key, _) = record?;
        if matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(b"GNU.sparse.") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Records, each `length key=value\n`, where the length counts the whole record.
struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let record = record(self.0);
        self.0 = record.map_or(&[], |(_, _, rest)| rest);
        Some(record.map(|(key, value, _)| (key, value)).ok_or("an extended header that does not add up"))
    }
}

fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(number(&bytes[..space])?).ok()?;
    let body = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=').filter(|at| *at > 0)?;
    let key = &body[..equals];
    (!key.contains(&0)).then_some((key, &body[equals + 1..], &bytes[length..]))
}

impl Pax {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        // An empty value takes the record back; only attributes can be empty.
        let is_empty = value.is_empty();
        let or_bad = |number: Option<u64>| if is_empty { Ok(None) } else { number.map(Some).ok_or(BAD_NUMBER) };
        match key {
            b"path" => self.path = name(value)?,
            b"linkpath" => self.link = name(value)?,
            b"size" => self.size = or_bad(number(value))?,
            b"uid" => self.uid = id(or_bad(number(value))?)?,
            b"gid" => self.gid = id(or_bad(number(value))?)?,
            b"mtime" => self.mtime = if is_empty { None } else { Some(time(value).ok_or(BAD_NUMBER)?) },
            b"GNU.sparse.name" => self.sparse.name = name(value)?,
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.real_size = or_bad(number(value))?,
            b"GNU.sparse.map" => self.sparse.map = Some(sparse_map(value).ok_or(BAD_NUMBER)?),
            b"GNU.sparse.offset" => {
                if self.sparse.half.replace(number(value).ok_or(BAD_NUMBER)?).is_some() {
                    return Err("two sparse offsets in a row");
                }
            }
            b"GNU.sparse.numbytes" => {
                let offset = self.sparse.half.take().ok_or("a sparse length without its offset")?;
                let length = number(value).ok_or(BAD_NUMBER)?;
                self.sparse.map.get_or_insert_default().push((offset, length));
            }
            b"GNU.sparse.major" => self.sparse.major = or_bad(number(value))?,
            b"GNU.sparse.minor" => {
                self.sparse.map_in_data = match (self.sparse.major, number(value)) {
                    (Some(1), Some(0)) => true,
                    (Some(0), Some(0 | 1)) => false,
                    _ => return Err("a sparse format of unknown version"),
                }
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    // The last record of a name wins.
                    self.xattrs.retain(|(known, _)| known.as_encoded_bytes() != name);
                    self.xattrs.push((OsString::from_vec(name.to_vec()), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

const BAD_NUMBER: &str = "a number that is none";

fn name(value: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    if value.contains(&0) {
        return Err("a name with a zero byte");
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

/// A decimal number without sign or spaces.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 20 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// An owner. The highest number means «nobody» to the kernel and is none.
fn id(number: Option<u64>) -> Result<Option<u32>, &'static str> {
    let Some(number) = number else { return Ok(None) };
    match u32::try_from(number) {
        Ok(id) if id != u32::MAX => Ok(Some(id)),
        _ => Err("an owner out of range"),
    }
}

fn time(text: &[u8]) -> Option<Timestamp> {
    let (is_negative, text) = text.strip_prefix(b"-").map_or((false, text), |text| (true, text));
    let dot = text.iter().position(|byte| *byte == b'.').unwrap_or(text.len());
    let secs = i64::try_from(number(&text[..dot])?).ok()?;
    let fraction = text.get(dot + 1..).unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanos = digits.fold(0u32, |nanos, digit| nanos * 10 + u32::from(digit - b'0'));
    Some(match (is_negative, nanos) {
        (false, nanos) => Timestamp { secs, nanos },
        (true, 0) => Timestamp { secs: -secs, nanos: 0 },
        (true, nanos) => Timestamp { secs: -secs - 1, nanos: 1_000_000_000 - nanos },
    })
}

fn sparse_map(text: &[u8]) -> Option<Vec<(u64, u64)>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let numbers: Vec<u64> = text.split(|byte| *byte == b',').map(number).collect::<Option<_>>()?;
    let pairs = numbers.chunks_exact(2);
    pairs.remainder().is_empty().then(|| pairs.map(|pair| (pair[0], pair[1])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_that_do_not_add_up_are_refused() {
        let good = b"18 path=some/file\n12 uid=7000\n";
        let pax = parse(good).unwrap();
        assert_eq!((pax.path.as_deref(), pax.uid), (Some(&b"some/file"[..]), Some(7000)));
        for bad in [
            &b"19 path=some/file\n"[..],
            b"17 path=some/file\n",
            b"path=x\n",
            b"6 =ab\n",
            b"99999999999999999999999 a=b\n",
            b"-1 a=b\n",
            b"9 uid=-1\n",
            b"18 uid=4294967295\n",
            b"10 size=z\n",
            b"12 path=a\0b\n",
            b"0 \n",
        ] {
            assert!(parse(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn times_keep_all_digits() {
        let cases =
            [("1.5", 1, 500_000_000), ("-0.25", -1, 750_000_000), ("-2", -2, 0), ("7.1234567899", 7, 123_456_789)];
        for (text, secs, nanos) in cases {
            assert_eq!(time(text.as_bytes()), Some(Timestamp { secs, nanos }), "{text}");
        }
        assert_eq!(time(b"1.x"), None);
    }

    #[test]
    fn global_records_that_move_entries_are_seen() {
        assert!(is_global_ambiguous(b"12 size=1000\n").is_err());
        assert!(is_global_ambiguous(b"13 size=1000\n").unwrap());
        assert!(!is_global_ambiguous(b"13 comment=x\n").unwrap());
    }
}
