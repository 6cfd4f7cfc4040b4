//! Why a file came out differently, as far as its name and both its contents tell.

use kiln_fs::layer::Aspect;
use serde::Serialize;

/// A likely cause, and the way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The cause in a few words.
    pub cause: &'static str,
    /// What to do about it, as an imperative sentence.
    pub hint: &'static str,
}

const fn reason(cause: &'static str, hint: &'static str) -> Reason {
    Reason { cause, hint }
}

const TIMES: Reason = reason(
    "the time of the build",
    "build with `--reproducible`, or with `SOURCE_DATE_EPOCH` and `rewrite-timestamp=true`",
);
const PYC: Reason = reason(
    "compiled Python with the time of its source",
    "bring the time of the build into the step with `ARG SOURCE_DATE_EPOCH`, or set `PYTHONDONTWRITEBYTECODE=1`",
);
const LOG: Reason = reason("a log", "remove it in the step that writes it");
const LDCONFIG: Reason =
    reason("ldconfig's cache of inodes and times", "remove `/var/cache/ldconfig/aux-cache` in the step that writes it");
const APT: Reason = reason(
    "apt's lists and caches",
    "remove `/var/lib/apt/lists` and `/var/cache/apt` in the step that fills them, or mount caches there",
);
const DPKG: Reason = reason(
    "dpkg's own backup or log",
    "remove `/var/lib/dpkg/*-old` and `/var/log/dpkg.log` in the step that writes them",
);
const DEBCONF: Reason = reason("debconf's database", "remove `/var/cache/debconf/*` in the step that writes it");
const MACHINE_ID: Reason =
    reason("an id made up for this machine", "empty `/etc/machine-id` in the step that fills it");
const HOST_KEY: Reason =
    reason("a key made up at random", "make keys when a container starts, not when its image is built");
const FONTS: Reason = reason(
    "fontconfig's cache of times",
    "remove `/var/cache/fontconfig` in the step that fills it, or set `SOURCE_DATE_EPOCH` there",
);
const SHADOW: Reason = reason(
    "the day of the last change of a password",
    "set `SOURCE_DATE_EPOCH` for `useradd`, or `chage -d` afterwards",
);
const TEMPORARY: Reason =
    reason("a temporary file or a cache", "remove it in the step that writes it, or mount a tmpfs or cache there");
const GZIP: Reason = reason("the time in a gzip header", "compress with `gzip -n`");
const ZIP: Reason =
    reason("times of files in a zip archive", "set the times of what is packed, and pack with `zip -X`");
const AR: Reason = reason("times or owners in an ar archive", "make it with `ar D`");
const TAR: Reason = reason(
    "times, owners or order in a tar archive",
    "pack with `tar --sort=name --mtime=@$SOURCE_DATE_EPOCH --owner=0 --group=0`",
);
const ORDER: Reason =
    reason("the same lines in another order", "sort what is written, as `ls -U`, `find` and hash tables give no order");
const DATE: Reason = reason(
    "a time written into it",
    "write `SOURCE_DATE_EPOCH` instead of the clock, which `ARG SOURCE_DATE_EPOCH` brings into the step",
);
const RANDOM: Reason = reason("an id made up at random", "derive it from what is built, or give it as an argument");
const NAME: Reason = reason(
    "a name that differs from build to build",
    "give it a name that does not change, or remove it in the step that makes it",
);
const ELSE: Reason =
    reason("its content differs from build to build", "run the step twice by hand and compare this file");
pub(super) const CONTEXT: Reason =
    reason("the context has another file now", "verify with the context as it was when the image was built");
const LOOK: Reason =
    reason("its mode, owner or attributes differ from build to build", "set them in the step that makes the file");

/// Names that tell, by how their path begins or ends; `*` before what it ends in.
const KNOWN: [(&str, Reason); 29] = [
    ("*.pyc", PYC),
    ("var/cache/ldconfig/", LDCONFIG),
    ("var/lib/apt/", APT),
    ("var/cache/apt/", APT),
    ("var/log/dpkg.log", DPKG),
    ("var/log/", LOG),
    ("*.log", LOG),
    ("*-old", DPKG),
    ("var/cache/debconf/", DEBCONF),
    ("etc/machine-id", MACHINE_ID),
    ("var/lib/dbus/machine-id", MACHINE_ID),
    ("etc/ssh/ssh_host_", HOST_KEY),
    ("var/cache/fontconfig/", FONTS),
    ("etc/shadow", SHADOW),
    ("etc/shadow-", SHADOW),
    ("tmp/", TEMPORARY),
    ("var/tmp/", TEMPORARY),
    ("root/.cache/", TEMPORARY),
    ("root/.npm/", TEMPORARY),
    ("var/cache/", TEMPORARY),
    ("*.gz", GZIP),
    ("*.tgz", GZIP),
    ("*.jar", ZIP),
    ("*.whl", ZIP),
    ("*.zip", ZIP),
    ("*.war", ZIP),
    ("*.a", AR),
    ("*.tar", TAR),
    ("*.swp", TEMPORARY),
];

/// Why a file differs. `contents` are the beginnings of both, where both are files.
pub(super) fn reason_of(path: &str, aspects: &[Aspect], contents: Option<[&[u8]; 2]>) -> Reason {
    if aspects == [Aspect::Mtime] {
        return TIMES;
    }
    if let Some(known) = known(path) {
        return known;
    }
    match contents {
        Some(contents) if aspects.contains(&Aspect::Content) => of_contents(contents),
        _ if aspects.is_empty() => NAME,
        _ if aspects.iter().any(|aspect| matches!(aspect, Aspect::Target | Aspect::Kind)) => ELSE,
        _ => LOOK,
    }
}

fn known(path: &str) -> Option<Reason> {
    let tells = |pattern: &str| match pattern.strip_prefix('*') {
        Some(end) => path.ends_with(end),
        None => path.starts_with(pattern),
    };
    KNOWN.iter().find(|(pattern, _)| tells(pattern)).map(|(_, reason)| *reason)
}

fn of_contents([one, other]: [&[u8]; 2]) -> Reason {
    const MAGIC: [(&[u8], Reason); 4] =
        [(&[0x1f, 0x8b], GZIP), (b"PK\x03\x04", ZIP), (b"!<arch>\n", AR), (&[0x28, 0xb5, 0x2f, 0xfd], ELSE)];
    if let Some((_, reason)) = MAGIC.iter().find(|(magic, _)| one.starts_with(magic) && other.starts_with(magic)) {
        return *reason;
    }
    if one.get(257..262) == Some(b"ustar") && other.get(257..262) == Some(b"ustar") {
        return TAR;
    }
    if is_reordered(one, other) {
        return ORDER;
    }
    let words = [words(one), words(other)];
    let mut pairs = words[0].iter().zip(&words[1]).filter(|(one, other)| one != other).peekable();
    if words[0].len() != words[1].len() || pairs.peek().is_none() {
        return ELSE;
    }
    let pairs: Vec<_> = pairs.collect();
    let all = |is: fn(&[u8]) -> bool| pairs.iter().all(|(one, other)| is(one) && is(other));
    match () {
        () if all(is_of_a_time) => DATE,
        () if all(is_random) => RANDOM,
        () => ELSE,
    }
}

fn is_reordered(one: &[u8], other: &[u8]) -> bool {
    let sorted = |bytes: &[u8]| {
        let mut lines: Vec<Vec<u8>> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        lines.sort_unstable();
        lines
    };
    one.len() == other.len() && one != other && sorted(one) == sorted(other)
}

fn words(bytes: &[u8]) -> Vec<&[u8]> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    bytes.split(|byte| !is_word(*byte)).filter(|word| !word.is_empty()).collect()
}

/// Numbers as clocks and calendars have them: `12`, `1700000000`, `2024-01-02T03`, `Mon`, `Jan`.
fn is_of_a_time(word: &[u8]) -> bool {
    const NAMES: [&[u8]; 21] = [
        b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun", b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul",
        b"Aug", b"Sep", b"Oct", b"Nov", b"Dec", b"AM", b"PM",
    ];
    let digits = word.iter().filter(|byte| byte.is_ascii_digit()).count();
    let others = word.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'T' | b'Z'));
    NAMES.contains(&word) || (others && digits > 0)
}

/// Long words of hexadecimal digits or of any letters and digits mixed.
fn is_random(word: &[u8]) -> bool {
    let has_digit = word.iter().any(u8::is_ascii_digit);
    word.len() >= 6 && (has_digit || word.iter().any(u8::is_ascii_uppercase) && word.iter().any(u8::is_ascii_lowercase))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell() {
        let of = |path| reason_of(path, &[Aspect::Content, Aspect::Mtime], Some([b"a", b"b"]));
        for (path, expected) in [
            ("usr/lib/python3/__pycache__/a.cpython-311.pyc", PYC),
            ("var/cache/ldconfig/aux-cache", LDCONFIG),
            ("var/lib/apt/lists/x", APT),
            ("var/log/dpkg.log", DPKG),
            ("var/log/x", LOG),
            ("app/build.log", LOG),
            ("var/lib/dpkg/status-old", DPKG),
            ("etc/machine-id", MACHINE_ID),
            ("etc/ssh/ssh_host_rsa_key", HOST_KEY),
            ("tmp/x", TEMPORARY),
            ("app/x.jar", ZIP),
            ("lib/x.a", AR),
        ] {
            assert_eq!(of(path), expected, "{path}");
        }
    }

    #[test]
    fn contents_tell() {
        let of = |one: &[u8], other: &[u8]| reason_of("app/x", &[Aspect::Content], Some([one, other]));
        for (one, other, expected) in [
            (&b"built 1700000000\n"[..], &b"built 1700000009\n"[..], DATE),
            (b"Mon Jan  1 10:00:01 UTC 2024", b"Tue Jan  2 10:00:02 UTC 2024", DATE),
            (b"2024-01-02T03:04:05Z", b"2024-01-02T03:04:07Z", DATE),
            (b"id=5f0c2a9e-7d1b-4c6f-9e0a-000000000001", b"id=a1b2c3d4-7d1b-4c6f-9e0a-000000000002", RANDOM),
            (b"b\na\nc\n", b"c\na\nb\n", ORDER),
            (b"\x1f\x8b\x08\x00aaaa", b"\x1f\x8b\x08\x00bbbb", GZIP),
            (b"PK\x03\x04a", b"PK\x03\x04b", ZIP),
            (b"one", b"two words", ELSE),
            (b"one", b"two", ELSE),
        ] {
            assert_eq!(of(one, other), expected, "{}", String::from_utf8_lossy(one));
        }
    }

    #[test]
    fn what_is_no_content_tells_by_its_aspects() {
        for (aspects, expected) in
            [(&[Aspect::Mtime][..], TIMES), (&[Aspect::Mode], LOOK), (&[], NAME), (&[Aspect::Target], ELSE)]
        {
            assert_eq!(reason_of("app/x", aspects, None), expected);
        }
        assert_eq!(reason_of("var/log/x", &[Aspect::Mtime], None), TIMES, "a log that says the same is fine");
    }
}
