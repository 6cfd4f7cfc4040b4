//! Values of options: sizes, limits, hosts, key–value pairs, comma-separated lists.

use std::net::IpAddr;
use std::num::NonZero;

use kiln_engine::{Isolation, Ulimit};
use kiln_report::{Failure, FailureKind};

/// Says why a value is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Wrong(pub(crate) String);

/// A command line that cannot be meant.
pub(crate) fn usage(message: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Usage, message)
}

fn wrong<T>(message: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong(message.into()))
}

/// A switch's value as Go reads one.
pub(crate) fn go_bool(text: &str) -> Result<bool, Wrong> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => wrong("expected `true` or `false`"),
    }
}

/// What keeps steps apart from the machine, in docker's and buildah's words.
pub(crate) fn isolation(text: &str) -> Result<Isolation, Wrong> {
    match text {
        "default" | "oci" | "rootless" => Ok(Isolation::Namespaces),
        "chroot" => Ok(Isolation::Chroot),
        other => {
            let near = did_you_mean(other, ["default", "chroot", "oci", "rootless"]);
            wrong(format!("`{other}` is no isolation: expected `default`, `oci`, `rootless` or `chroot`{near}"))
        }
    }
}

/// Bytes, in powers of 1024: `64m`, `1.5g`, `128MiB`.
pub(crate) fn bytes(text: &str) -> Result<u64, Wrong> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return wrong("expected a number and a unit: `b`, `k`, `m`, `g`, `t` or `p`, as in `64m`"),
    };
    let Ok(number) = number.parse::<f64>() else { return wrong("expected a number, as in `64m`") };
    let bytes = number * (1_u64 << shift) as f64;
    if !(0.0..=i64::MAX as f64).contains(&bytes) {
        return wrong("the size is out of range");
    }
    Ok(bytes as u64)
}

/// How many steps may run at once; 0 is as many as there are.
pub(crate) fn jobs(text: &str) -> Result<NonZero<usize>, Wrong> {
    match text.parse::<usize>() {
        Ok(jobs) => Ok(NonZero::new(jobs).unwrap_or(NonZero::<usize>::MAX)),
        Err(_) => wrong("expected a number of steps, or 0 for as many as there are"),
    }
}

/// The names of resource limits.
const LIMITS: [&str; 16] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
    "as",
];

/// A resource limit: `nofile=1024`, `nofile=1024:2048`; -1 is none.
pub(crate) fn ulimit(text: &str) -> Result<Ulimit, Wrong> {
    let Some((name, limits)) = text.split_once('=') else {
        return wrong("expected `name=soft[:hard]`, as in `nofile=1024`");
    };
    if !LIMITS.contains(&name) {
        let near = did_you_mean(name, LIMITS);
        return wrong(format!("no limit is called `{name}`: expected `name=soft[:hard]`, as in `nofile=1024`{near}"));
    }
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| match text.parse::<i64>() {
        Ok(number) if number >= -1 => Ok(number),
        _ => wrong(format!("`{text}` is no limit: expected a number, or -1 for none")),
    };
    let (soft, hard) = (number(soft)?, number(hard)?);
    if hard != -1 && (soft == -1 || soft > hard) {
        return wrong("the soft limit is above the hard one: expected `name=soft[:hard]`, as in `nofile=1024:2048`");
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

/// The longest name of a host that the kernel takes.
const HOST_NAME: usize = 64;

/// What a container's host is called.
pub(crate) fn host_name(text: &str) -> Result<String, Wrong> {
    let is_label = |label: &str| {
        let is_inside = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.bytes().all(is_inside)
    };
    if text.len() > HOST_NAME || !text.split('.').all(is_label) {
        return wrong(format!(
            "expected letters, digits, `-` and `.`, at most {HOST_NAME} of them, as in `build-1.lan`"
        ));
    }
    Ok(text.to_owned())
}

/// A line for `/etc/hosts`: `name:address` or `name=address`.
pub(crate) fn host(text: &str) -> Result<(String, String), Wrong> {
    let Some((name, address)) = text.split_once('=').or_else(|| text.split_once(':')) else {
        return wrong("expected `name:address`, as in `db:10.0.0.7`");
    };
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#') {
        return wrong(format!("`{name}` is not a host name: expected `name:address`, as in `db:10.0.0.7`"));
    }
    // Only when a step runs it is known by which address it reaches the machine.
    if address == "host-gateway" {
        return Ok((name.to_owned(), address.to_owned()));
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    match bare.parse::<IpAddr>() {
        Ok(address) => Ok((name.to_owned(), address.to_string())),
        Err(_) => {
            wrong(format!("`{address}` is not an IP address: expected one, as in `db:10.0.0.7`, or `host-gateway`"))
        }
    }
}

/// `key=value`; without `=` there is no value.
pub(crate) fn pair(text: &str) -> Result<(String, Option<String>), Wrong> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (text, None),
    };
    if key.trim().is_empty() {
        return wrong("expected `key=value`: the key is empty");
    }
    Ok((key.to_owned(), value))
}

/// One line of comma-separated fields; a field in double quotes may hold commas, and `""` in it is a quote.
pub(crate) fn fields(text: &str) -> Result<Vec<String>, Wrong> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let field;
        (field, rest) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let (field, rest) = rest.split_at(end);
                if field.contains('"') {
                    return wrong(
                        "a quote stands in the middle of a field; quote the whole field, as in `\"name=a,b\"`",
                    );
                }
                (field.to_owned(), rest)
            }
        };
        fields.push(field);
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None if rest.is_empty() => return Ok(fields),
            None => return wrong("text follows the closing quote of a field"),
        }
    }
}

fn quoted_field(text: &str) -> Result<(String, &str), Wrong> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let Some((before, after)) = rest.split_once('"') else { return wrong("a quote is not closed") };
        field.push_str(before);
        match after.strip_prefix('"') {
            Some(after) => {
                field.push('"');
                rest = after;
            }
            None => return Ok((field, after)),
        }
    }
}

/// The fields of a comma-separated list of `key=value`, with lower-case keys.
pub(crate) fn attributes(text: &str) -> Result<Vec<(String, String)>, Wrong> {
    let attribute = |field: String| match field.split_once('=') {
        Some((key, value)) => Ok((key.trim().to_ascii_lowercase(), value.to_owned())),
        None => wrong(format!("`{field}` has no value: expected `key=value`")),
    };
    fields(text)?.into_iter().map(attribute).collect()
}

/// `; did you mean …?` when a known word is close.
pub(crate) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let distance = |known: &str| strsim::damerau_levenshtein(&word.to_ascii_lowercase(), known);
    let near = known.into_iter().map(|known| (distance(known), known)).filter(|(far, _)| *far <= 2).min();
    near.map(|(_, known)| format!("; did you mean `{known}`?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_count_in_powers_of_1024() {
        for (text, size) in
            [("64m", 64 << 20), ("1.5g", 3 << 29), ("128MiB", 128 << 20), ("7", 7), ("2 kb", 2048), ("1GB", 1 << 30)]
        {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for bad in ["", "m", "-1m", "1x", "1.2.3", "99999999999p", "1e3"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_have_a_soft_and_a_hard_side() {
        const NEAR: &str =
            "no limit is called `nofiles`: expected `name=soft[:hard]`, as in `nofile=1024`; did you mean `nofile`?";
        let limit = |soft, hard| Ok(Ulimit { name: "nofile".into(), soft, hard });
        assert_eq!(ulimit("nofile=1024"), limit(1024, 1024));
        assert_eq!(ulimit("nofile=1024:-1"), limit(1024, -1));
        assert_eq!(ulimit("nofiles=1").unwrap_err().0, NEAR);
        for bad in ["nofile", "nofile=", "nofile=2:1", "nofile=-1:5", "nofile=-2"] {
            assert!(ulimit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_hosts_are_what_the_kernel_and_resolvers_take() {
        let long = "a".repeat(64);
        assert!(["a", "build-1.lan", "my_host", "1", &long].iter().all(|name| host_name(name).is_ok()));
        let too_long = "a".repeat(65);
        for bad in ["", ".", "a..b", "-a", "a-", "a b", "a\n", "a/b", "\u{e4}", &too_long] {
            assert!(host_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn hosts_have_addresses() {
        let of = |name: &str, address: &str| Ok((name.to_owned(), address.to_owned()));
        assert_eq!(host("a:1.2.3.4"), of("a", "1.2.3.4"));
        assert_eq!(host("a=::1"), of("a", "::1"));
        assert_eq!(host("a:[::1]"), of("a", "::1"));
        assert_eq!(host("a:::1"), of("a", "::1"));
        assert_eq!(host("a:host-gateway"), of("a", "host-gateway"));
        for bad in ["a", ":1.2.3.4", "a:b", "a b:1.2.3.4", "a\n:1.2.3.4"] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn fields_may_be_quoted() {
        let of = |fields: &[&str]| Ok(fields.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>());
        assert_eq!(fields("type=oci,dest=a b"), of(&["type=oci", "dest=a b"]));
        assert_eq!(fields(r#"type=image,"name=a,b",push=true"#), of(&["type=image", "name=a,b", "push=true"]));
        assert_eq!(fields(r#""a""b""#), of(&[r#"a"b"#]));
        assert_eq!(fields(""), of(&[""]));
        for bad in [r#"a"b"#, r#""a"#, r#""a"b"#] {
            assert!(fields(bad).is_err(), "{bad}");
        }
    }
}
