//! A certificate that a test makes itself.

use std::path::Path;

use crate::Tool;

/// A self-signed certificate for 127.0.0.1 and its key, as files in `dir`; skipped aloud without openssl.
pub fn certificate(dir: &Path) -> Option<(String, String)> {
    let openssl = Tool::find("openssl")?;
    let place = |name: &str| dir.join(name).display().to_string();
    let (key, cert) = (place("key.pem"), place("cert.pem"));
    let make = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    let name = ["-subj", "/CN=kiln test", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", &key, "-out", &cert];
    let leaf = ["-addext", "basicConstraints=critical,CA:FALSE"];
    openssl.run(&[&make[..], &name[..], &leaf[..]].concat()).expect("openssl makes a certificate");
    Some((cert, key))
}
