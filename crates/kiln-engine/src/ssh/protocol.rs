//! The agent protocol: frames, and the two requests that are let through.
//!
//! Reference: draft-miller-ssh-agent, sections 3 to 5.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Asks which keys there are.
pub(super) const LIST: u8 = 11;
/// The keys.
pub(super) const KEYS: u8 = 12;
/// Asks for a signature.
pub(super) const SIGN: u8 = 13;
/// The signature.
pub(super) const SIGNATURE: u8 = 14;
/// No.
pub(super) const FAILURE: u8 = 5;

/// The largest message, as in OpenSSH's agent.
const LARGEST: usize = 256 << 10;

/// Whether a request changes nothing: lists keys, or signs.
pub(super) fn is_let_through(message: &[u8]) -> bool {
    matches!(message.first(), Some(&(LIST | SIGN)))
}

/// Reads one message; none when the other side is through.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length).await {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    };
    let length = u32::from_be_bytes(length) as usize;
    if !(1..=LARGEST).contains(&length) {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "a message of an agent is too large"));
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

/// Writes one message.
pub(super) async fn write(stream: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> std::io::Result<()> {
    let mut frame = Vec::with_capacity(message.len() + 4);
    put_string(&mut frame, message);
    stream.write_all(&frame).await
}

/// Appends bytes with their length before them; so does a frame begin.
pub(super) fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Appends a positive number.
pub(super) fn put_number(out: &mut Vec<u8>, big_endian: &[u8]) {
    let digits = &big_endian[big_endian.iter().take_while(|byte| **byte == 0).count()..];
    let sign = digits.first().is_some_and(|byte| byte & 0x80 != 0);
    let number: Vec<u8> = sign.then_some(0).into_iter().chain(digits.iter().copied()).collect();
    put_string(out, &number);
}

/// What a request to sign says.
pub(super) struct ToSign<'m> {
    /// The public key.
    pub(super) key: &'m [u8],
    pub(super) data: &'m [u8],
    pub(super) flags: u32,
}

impl<'m> ToSign<'m> {
    /// Reads a message.
    pub(super) fn read(message: &'m [u8]) -> Option<Self> {
        let (key, rest) = take_string(message.get(1..)?)?;
        let (data, rest) = take_string(rest)?;
        Some(Self { key, data, flags: u32::from_be_bytes(rest.get(..4)?.try_into().ok()?) })
    }
}

fn take_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listing_and_signing_get_through() {
        let through: Vec<u8> = (0..=255).filter(|kind| is_let_through(&[*kind])).collect();
        assert_eq!(through, [LIST, SIGN]);
        assert!(!is_let_through(&[]));
    }

    #[test]
    fn requests_of_any_length_are_read_or_refused() {
        let mut message = vec![SIGN];
        put_string(&mut message, b"key");
        put_string(&mut message, b"data");
        message.extend(4_u32.to_be_bytes());
        let request = ToSign::read(&message).unwrap();
        assert_eq!((request.key, request.data, request.flags), (&b"key"[..], &b"data"[..], 4));
        for length in 0..message.len() {
            assert!(ToSign::read(&message[..length]).is_none(), "{length}");
        }
    }

    #[test]
    fn numbers_are_positive_and_short() {
        let number = |bytes: &[u8]| {
            let mut out = Vec::new();
            put_number(&mut out, bytes);
            out
        };
        assert_eq!(number(&[0, 0, 1]), [0, 0, 0, 1, 1]);
        assert_eq!(number(&[0x80]), [0, 0, 0, 2, 0, 0x80]);
        assert_eq!(number(&[0]), [0, 0, 0, 0]);
    }

    #[tokio::test]
    async fn a_message_that_would_fill_memory_is_not_read() {
        let mut frame: &[u8] = &[0xff, 0xff, 0xff, 0xff, 1];
        assert!(read(&mut frame).await.is_err());
        let mut frame: &[u8] = &[0, 0, 0, 0];
        assert!(read(&mut frame).await.is_err());
        let mut frame: &[u8] = &[0, 0, 0, 1, LIST];
        assert_eq!(read(&mut frame).await.unwrap(), Some(vec![LIST]));
        assert_eq!(read(&mut frame).await.unwrap(), None);
    }
}
