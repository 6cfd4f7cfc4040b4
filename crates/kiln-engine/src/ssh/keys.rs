//! Private keys: read from OpenSSH's files, listed, signed with.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPairComponents, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaKeyPair,
};
use kiln_report::{Failure, FailureKind};
use kiln_sys::secret::Secret;
use ssh_key::PrivateKey;
use ssh_key::private::{EcdsaKeypair, KeypairData, RsaKeypair};

use super::protocol::{FAILURE, KEYS, LIST, SIGN, SIGNATURE, ToSign, put_number, put_string};

/// Flags of a request to sign: which hash with RSA. Without either, SHA-1 would be meant, which is broken.
const SHA2_256: u32 = 2;
const SHA2_512: u32 = 4;

/// A private key.
#[derive(Clone)]
pub struct SshKey(Arc<Key>);

struct Key {
    public: Vec<u8>,
    comment: String,
    pair: Pair,
    file: Secret,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    Ecdsa { pair: EcdsaKeyPair, name: &'static str },
    Rsa(RsaKeyPair),
}

impl fmt::Debug for SshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SshKey({})", self.0.comment)
    }
}

impl SshKey {
    /// Reads a key file; `name` is for messages.
    pub fn parse(text: &[u8], name: &str) -> Result<Self, Failure> {
        let wrong = |message: String| Failure::new(FailureKind::Usage, message);
        let key = PrivateKey::from_openssh(text).map_err(|_| unreadable(text, name))?;
        if key.is_encrypted() {
            let hint = format!("add it to an agent with `ssh-add {name}`, and lend that with `--ssh default`");
            return Err(wrong(format!("the ssh key `{name}` has a passphrase")).hint(hint));
        }
        let pair = pair(&key).ok_or_else(|| {
            let kind = key.algorithm();
            wrong(format!("the ssh key `{name}` is of kind `{kind}`, which kiln cannot sign with"))
                .hint("lend an agent that has it, or a key of kind ed25519, ECDSA or RSA")
        })?;
        let public = key.public_key().to_bytes().map_err(|_| unreadable(text, name))?;
        let comment = if key.comment().is_empty() { name } else { key.comment() };
        Ok(Self(Arc::new(Key { public, comment: comment.to_owned(), pair, file: text.to_vec().into() })))
    }

    /// What it was read from.
    pub fn file(&self) -> &[u8] {
        self.0.file.expose()
    }
}

fn unreadable(text: &[u8], name: &str) -> Failure {
    let failure = Failure::new(FailureKind::Usage, format!("`{name}` is no private key of OpenSSH"));
    let text = String::from_utf8_lossy(text);
    if text.starts_with("ssh-") || text.starts_with("ecdsa-") {
        return failure.hint("this is the public key: name the file without `.pub`");
    }
    match text.contains("-----BEGIN ") && text.contains("PRIVATE KEY-----") {
        true => failure.hint(format!("write it in OpenSSH's own format with `ssh-keygen -p -f {name}`")),
        false => failure.hint("make one with `ssh-keygen`"),
    }
}

fn pair(key: &PrivateKey) -> Option<Pair> {
    match key.key_data() {
        KeypairData::Ed25519(pair) => {
            let pair = Ed25519KeyPair::from_seed_and_public_key(pair.private.as_ref(), pair.public.as_ref()).ok()?;
            Some(Pair::Ed25519(pair))
        }
        KeypairData::Ecdsa(pair) => {
            let (algorithm, name): (&'static EcdsaSigningAlgorithm, _) = match pair {
                EcdsaKeypair::NistP256 { .. } => (&ECDSA_P256_SHA256_FIXED_SIGNING, "ecdsa-sha2-nistp256"),
                EcdsaKeypair::NistP384 { .. } => (&ECDSA_P384_SHA384_FIXED_SIGNING, "ecdsa-sha2-nistp384"),
                EcdsaKeypair::NistP521 { .. } => (&ECDSA_P521_SHA512_FIXED_SIGNING, "ecdsa-sha2-nistp521"),
            };
            let (private, public) = (pair.private_key_bytes(), pair.public_key_bytes());
            let pair = EcdsaKeyPair::from_private_key_and_public_key(algorithm, private, public).ok()?;
            Some(Pair::Ecdsa { pair, name })
        }
        KeypairData::Rsa(pair) => rsa(pair).map(Pair::Rsa),
        _ => None,
    }
}

fn rsa(pair: &RsaKeypair) -> Option<RsaKeyPair> {
    let (public, private) = (&pair.public, &pair.private);
    let (n, e) = (public.n.as_positive_bytes()?, public.e.as_positive_bytes()?);
    let (d, p, q) = (private.d.as_positive_bytes()?, private.p.as_positive_bytes()?, private.q.as_positive_bytes()?);
    let (d_p, d_q) = (exponent(d, p)?, exponent(d, q)?);
    let components = KeyPairComponents {
        public_key: PublicKeyComponents { n, e },
        d,
        p,
        q,
        dP: d_p.as_slice(),
        dQ: d_q.as_slice(),
        qInv: private.iqmp.as_positive_bytes()?,
    };
    RsaKeyPair::from_components(&components).ok()
}

/// `d mod (prime - 1)`, bit by bit: OpenSSH does not keep it.
fn exponent(d: &[u8], prime: &[u8]) -> Option<Vec<u8>> {
    let mut modulus = prime.to_vec();
    // A prime is odd, so nothing is borrowed.
    *modulus.last_mut().filter(|byte| **byte & 1 == 1)? -= 1;
    let width = modulus.len() + 1;
    let modulus: Vec<u8> = std::iter::once(0).chain(modulus).collect();
    let mut rest = vec![0_u8; width];
    for bit in d.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
        let mut carry = bit;
        for digit in rest.iter_mut().rev() {
            (*digit, carry) = (*digit << 1 | carry, *digit >> 7);
        }
        if rest >= modulus {
            subtract(&mut rest, &modulus);
        }
    }
    Some(rest.split_off(1))
}

fn subtract(from: &mut [u8], what: &[u8]) {
    let mut borrow = false;
    for (digit, less) in from.iter_mut().zip(what).rev() {
        let (rest, under) = digit.overflowing_sub(*less);
        let (rest, again) = rest.overflowing_sub(u8::from(borrow));
        (*digit, borrow) = (rest, under || again);
    }
}

/// Answers a request.
pub(super) fn answer(keys: &[SshKey], message: &[u8]) -> Vec<u8> {
    match message.first() {
        Some(&LIST) => list(keys),
        Some(&SIGN) => sign(keys, message).unwrap_or_else(|| vec![FAILURE]),
        _ => vec![FAILURE],
    }
}

fn list(keys: &[SshKey]) -> Vec<u8> {
    let mut out = vec![KEYS];
    out.extend((keys.len() as u32).to_be_bytes());
    for SshKey(key) in keys {
        put_string(&mut out, &key.public);
        put_string(&mut out, key.comment.as_bytes());
    }
    out
}

fn sign(keys: &[SshKey], message: &[u8]) -> Option<Vec<u8>> {
    let request = ToSign::read(message)?;
    let SshKey(key) = keys.iter().find(|SshKey(key)| key.public == request.key)?;
    let (name, bytes) = key.pair.sign(&request)?;
    let mut signature = Vec::new();
    put_string(&mut signature, name.as_bytes());
    put_string(&mut signature, &bytes);
    let mut out = vec![SIGNATURE];
    put_string(&mut out, &signature);
    Some(out)
}

impl Pair {
    fn sign(&self, request: &ToSign<'_>) -> Option<(&'static str, Vec<u8>)> {
        match self {
            Self::Ed25519(pair) => Some(("ssh-ed25519", pair.sign(request.data).as_ref().to_vec())),
            Self::Ecdsa { pair, name } => {
                let signature = pair.sign(&SystemRandom::new(), request.data).ok()?;
                let (r, s) = signature.as_ref().split_at(signature.as_ref().len() / 2);
                let mut out = Vec::new();
                put_number(&mut out, r);
                put_number(&mut out, s);
                Some((*name, out))
            }
            Self::Rsa(pair) => {
                let (padding, name) = match request.flags {
                    flags if flags & SHA2_512 != 0 => (&RSA_PKCS1_SHA512, "rsa-sha2-512"),
                    flags if flags & SHA2_256 != 0 => (&RSA_PKCS1_SHA256, "rsa-sha2-256"),
                    _ => return None,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &SystemRandom::new(), request.data, &mut signature).ok()?;
                Some((name, signature))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_are_remainders() {
        let number = |n: u64| n.to_be_bytes().to_vec();
        for (d, prime) in [(123_456_789_012_345_u64, 65_537_u64), (5, 7), (6, 7), (u64::MAX, u64::MAX - 58), (0, 3)] {
            assert_eq!(exponent(&number(d), &number(prime)), Some(number(d % (prime - 1))), "{d} {prime}");
        }
        assert_eq!(exponent(&[1], &[4]), None);
        assert_eq!(exponent(&[1], &[]), None);
    }

    #[test]
    fn what_is_no_key_says_what_it_is() {
        let hint = |text: &str| SshKey::parse(text.as_bytes(), "k").unwrap_err().hints.concat();
        assert_eq!(hint("ssh-ed25519 AAAA me"), "this is the public key: name the file without `.pub`");
        let pem = "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n";
        assert_eq!(hint(pem), "write it in OpenSSH's own format with `ssh-keygen -p -f k`");
        assert_eq!(hint(""), "make one with `ssh-keygen`");
    }
}
