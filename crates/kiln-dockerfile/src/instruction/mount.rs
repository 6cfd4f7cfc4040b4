//! `RUN --mount=…`: fields separated by commas, each `key=value`.

use kiln_report::{Diagnostic, Span};

use super::csv::{Field, FieldError, csv_fields};
use crate::parse::Word;
use crate::suggest;

/// A mount with everything filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What it is.
    pub kind: MountKind,
    /// Stage, image or context it shows.
    pub from: Option<Word>,
    /// Path in there; a secret's id of old.
    pub source: String,
    /// Where it shows.
    pub target: String,
    /// Whether it can be written to.
    pub readonly: bool,
    /// Size of a tmpfs in bytes, 0 for no limit.
    pub size: i64,
    /// Id of a cache, secret or agent.
    pub id: String,
    /// What happens when two steps want one cache.
    pub sharing: Option<CacheSharing>,
    /// Whether the step cannot do without.
    pub required: bool,
    /// Variable a secret goes into.
    pub env: Option<String>,
    /// Permissions.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// The flag's value.
    pub span: Span,
}

/// Kinds of mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are the language's own words")]
pub enum MountKind {
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

/// What happens when two steps want one cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheSharing {
    /// Both use it at once.
    Shared,
    /// The second gets one of its own.
    Private,
    /// The second waits.
    Locked,
}

const KINDS: [(&str, MountKind); 5] = [
    ("bind", MountKind::Bind),
    ("cache", MountKind::Cache),
    ("tmpfs", MountKind::Tmpfs),
    ("secret", MountKind::Secret),
    ("ssh", MountKind::Ssh),
];

const SHARING: [(&str, CacheSharing); 3] =
    [("shared", CacheSharing::Shared), ("private", CacheSharing::Private), ("locked", CacheSharing::Locked)];

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "required",
    "size",
    "id",
    "sharing",
    "mode",
    "uid",
    "gid",
    "env",
];

impl MountKind {
    fn name(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }

    fn is_credential(self) -> bool {
        matches!(self, Self::Secret | Self::Ssh)
    }
}

/// Checks what can be told before any variable is filled in.
pub(super) fn check_early(flag: &Word, diagnostics: &mut Vec<Diagnostic>) {
    let fields = match csv_fields(&flag.text) {
        Ok(fields) => fields,
        Err(FieldError { at, reason }) => {
            let span = flag.part(at, flag.text.len().min(at + 1));
            diagnostics.push(Diagnostic::error(span, format!("`--mount` is not well formed: {reason}")));
            return;
        }
    };
    for Field { text, start, end } in fields {
        let Some((key, value)) = text.split_once('=') else { continue };
        let dollar = value.find('$').filter(|at| at + 1 != value.len());
        if key.eq_ignore_ascii_case("from") && dollar.is_some() {
            let message = "`from` of a mount cannot hold variables";
            let hint = "give the image a name with `FROM image AS name` and use that name";
            diagnostics.push(Diagnostic::error(flag.part(start, end), message).hint(hint));
        }
    }
}

/// Fills variables of one value in.
pub(crate) type Expander<'a> = dyn FnMut(&Word) -> Result<String, Box<Diagnostic>> + 'a;

impl Mount {
    /// A mount as it is written, with its variables left as they are.
    pub fn as_written(flag: &Word) -> Result<Self, Vec<Diagnostic>> {
        Self::read(flag, &mut |word| Ok(word.text.clone()))
    }

    /// Reads a mount, filling each value in. Gives all that is wrong with it.
    pub(crate) fn read(flag: &Word, expand: &mut Expander<'_>) -> Result<Self, Vec<Diagnostic>> {
        let fields = csv_fields(&flag.text).map_err(|error| {
            vec![Diagnostic::error(flag.span, format!("`--mount` is not well formed: {}", error.reason))]
        })?;
        let mut reader = Reader { mount: Self::empty(flag.span), has_kind: true, readonly: None, places: Vec::new() };
        let read = fields.iter().filter_map(|field| reader.field(field, flag, expand).err());
        let wrong: Vec<Diagnostic> = read.map(|error| *error).collect();
        if wrong.is_empty() { reader.finish() } else { Err(wrong) }
    }

    fn empty(span: Span) -> Self {
        Self {
            kind: MountKind::Bind,
            from: None,
            source: String::new(),
            target: String::new(),
            readonly: false,
            size: 0,
            id: String::new(),
            sharing: None,
            required: false,
            env: None,
            mode: None,
            uid: None,
            gid: None,
            span,
        }
    }
}

struct Reader {
    mount: Mount,
    /// Whether its kind is known, if it has been named.
    has_kind: bool,
    readonly: Option<bool>,
    /// Where each option stands.
    places: Vec<(String, Span)>,
}

fn wrong(span: Span, message: String) -> Box<Diagnostic> {
    Box::new(Diagnostic::error(span, message))
}

impl Reader {
    fn field(&mut self, field: &Field, flag: &Word, expand: &mut Expander<'_>) -> Result<(), Box<Diagnostic>> {
        let Field { text, start, end } = field;
        let span = flag.part(*start, *end);
        let Some((key, raw)) = text.split_once('=') else { return self.bare(text, span) };
        let key_name = if key.eq_ignore_ascii_case("src") { "source".into() } else { key.to_ascii_lowercase() };
        self.places.push((key_name, span));
        let value = Word { text: raw.to_owned(), span: flag.part(end - raw.len().min(end - start), *end) };
        let text = expand(&value)?;
        self.set(key, Word { text, span: value.span }, span)
    }

    fn bare(&mut self, field: &str, span: Span) -> Result<(), Box<Diagnostic>> {
        let key = field.to_ascii_lowercase();
        match key.as_str() {
            "readonly" | "ro" => self.readonly = Some(true),
            "readwrite" | "rw" => self.readonly = Some(false),
            "required" if self.mount.kind.is_credential() => self.mount.required = true,
            "required" => return self.misplaced(&key, span),
            _ if KEYS.contains(&key.as_str()) => {
                let error = wrong(span, format!("`{field}` of a mount has no value"));
                return Err(Box::new(error.hint(format!("write `{key}=…`"))));
            }
            _ => return Err(unknown_key(&key, span)),
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: Word, span: Span) -> Result<(), Box<Diagnostic>> {
        let key = key.to_ascii_lowercase();
        let mount = &mut self.mount;
        match key.as_str() {
            "type" => {
                let kind = choice(&value, &KINDS, "kind of mount");
                self.has_kind = kind.is_ok();
                mount.kind = kind?;
            }
            "from" => mount.from = Some(value).filter(|from| !from.text.is_empty()),
            "source" | "src" => mount.source = value.text,
            "target" | "dst" | "destination" => mount.target = value.text,
            "readonly" | "ro" => self.readonly = Some(boolean(&key, &value)?),
            "readwrite" | "rw" => self.readonly = Some(!boolean(&key, &value)?),
            "required" if mount.kind.is_credential() => mount.required = boolean(&key, &value)?,
            "size" if mount.kind == MountKind::Tmpfs => mount.size = size(&value)?,
            "required" | "size" => return self.misplaced(&key, span),
            "id" => mount.id = value.text,
            "sharing" => mount.sharing = Some(choice(&value, &SHARING, "way to share a cache")?),
            "mode" => mount.mode = Some(number(&key, &value, 8)?),
            "uid" => mount.uid = Some(number(&key, &value, 10)?),
            "gid" => mount.gid = Some(number(&key, &value, 10)?),
            "env" => mount.env = Some(value.text),
            _ => return Err(unknown_key(&key, span)),
        }
        Ok(())
    }

    fn misplaced(&self, key: &str, span: Span) -> Result<(), Box<Diagnostic>> {
        if !self.has_kind {
            return Ok(());
        }
        let error = wrong(span, format!("`{key}` means nothing to a mount of type `{}`", self.mount.kind.name()));
        let wanted = if key == "size" { "`type=tmpfs`" } else { "`type=secret` or `type=ssh`" };
        Err(Box::new(error.hint(format!("it goes with {wanted}, and `type` has to stand before it"))))
    }

    fn finish(mut self) -> Result<Mount, Vec<Diagnostic>> {
        let writable = matches!(self.mount.kind, MountKind::Cache | MountKind::Tmpfs);
        self.mount.readonly = self.readonly.unwrap_or(!writable);
        let mount = &self.mount;
        let name = mount.kind.name();
        let mut wrongs = Vec::new();
        let meaningless = |key: &'static str, wanted: &str| {
            let error = wrong(self.place(key), format!("`{key}` means nothing to a mount of type `{name}`"));
            error.hint(format!("it goes with {wanted}"))
        };
        if !mount.kind.is_credential() && mount.kind != MountKind::Cache {
            let given = [("mode", mount.mode), ("uid", mount.uid), ("gid", mount.gid)];
            let given = given.into_iter().filter(|(_, value)| value.is_some());
            wrongs.extend(given.map(|(key, _)| meaningless(key, "`type=cache`, `type=secret` and `type=ssh`")));
        }
        match mount.kind {
            MountKind::Secret => wrongs.extend(self.check_secret().err().map(|error| *error)),
            MountKind::Ssh if !mount.source.is_empty() => {
                let error = wrong(self.place("source"), "an ssh mount has no `source`".to_owned());
                wrongs.push(error.hint("name the agent with `id=`, and its socket with `target=`"));
            }
            _ => {}
        }
        // A secret's is told as what it is.
        if mount.sharing.is_some() && !matches!(mount.kind, MountKind::Cache | MountKind::Secret) {
            wrongs.push(meaningless("sharing", "`type=cache`"));
        }
        if wrongs.is_empty() { Ok(self.mount) } else { Err(wrongs) }
    }

    /// Where an option stands; the whole flag when it does not.
    fn place(&self, key: &str) -> Span {
        self.places.iter().rev().find(|(known, _)| known == key).map_or(self.mount.span, |(_, span)| *span)
    }

    fn check_secret(&self) -> Result<(), Box<Diagnostic>> {
        let mount = &self.mount;
        let (span, message, hint) = if mount.from.is_some() {
            let message = "a secret comes from the command line, and its mount has no `from`";
            (self.place("from"), message, "leave `from` out, or mount a file of the stage with `type=bind`")
        } else if mount.sharing.is_some() {
            (self.place("sharing"), "a secret mount has no `sharing`", "it goes with `type=cache`")
        } else if mount.source.is_empty() && mount.target.is_empty() && mount.id.is_empty() {
            (mount.span, "a secret mount needs `id` or `target`", "name the secret with `id=`")
        } else if !mount.source.is_empty() && !mount.id.is_empty() {
            (self.place("id"), "a secret mount has either `id` or `source`, not both", "keep `id`")
        } else if mount.env.as_ref().is_some_and(String::is_empty) {
            (self.place("env"), "`env` of a secret mount names no variable", "write `env=NAME`")
        } else {
            return Ok(());
        };
        Err(Box::new(wrong(span, message.to_owned()).hint(hint)))
    }
}

fn unknown_key(key: &str, span: Span) -> Box<Diagnostic> {
    let error = wrong(span, format!("a mount has no option `{key}`"));
    match suggest::nearest(key, KEYS) {
        Some(nearest) => Box::new(error.hint(format!("did you mean `{nearest}`?"))),
        None => error,
    }
}

fn choice<T: Copy>(value: &Word, choices: &[(&'static str, T)], what: &str) -> Result<T, Box<Diagnostic>> {
    let text = value.text.to_ascii_lowercase();
    if let Some((_, chosen)) = choices.iter().find(|(name, _)| *name == text) {
        return Ok(*chosen);
    }
    let error = wrong(value.span, format!("`{}` is no {what}", value.text));
    let names = choices.iter().map(|(name, _)| *name);
    Err(Box::new(match suggest::nearest(&text, names.clone()) {
        Some(nearest) => error.hint(format!("did you mean `{nearest}`?")),
        None => error.hint(format!("use one of `{}`", names.collect::<Vec<_>>().join("`, `"))),
    }))
}

fn boolean(key: &str, value: &Word) -> Result<bool, Box<Diagnostic>> {
    parse_bool(&value.text)
        .ok_or_else(|| wrong(value.span, format!("`{key}` is `true` or `false`, not `{}`", value.text)))
}

/// Go's spellings of truth.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn number(key: &str, value: &Word, radix: u32) -> Result<u32, Box<Diagnostic>> {
    let digits = !value.text.is_empty() && value.text.bytes().all(|b| b.is_ascii_digit());
    let parsed = u32::from_str_radix(&value.text, radix).ok().filter(|_| digits);
    parsed.ok_or_else(|| {
        let kind = if radix == 8 { "an octal number, as in `0755`" } else { "a number" };
        wrong(value.span, format!("`{key}` of a mount is {kind}, not `{}`", value.text))
    })
}

/// Bytes with an optional unit: `64m`, `1.5GiB`, `100`.
fn size(value: &Word) -> Result<i64, Box<Diagnostic>> {
    let fail = || {
        let error = wrong(value.span, format!("`{}` is no size", value.text));
        Box::new(error.hint("write a number and a unit: `64m`, `1g`"))
    };
    let text = value.text.as_str();
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.').map(|at| at + 1).ok_or_else(fail)?;
    let number: f64 = text[..end].parse().map_err(|_| fail())?;
    let unit = text[end..].strip_prefix(' ').unwrap_or(&text[end..]).to_ascii_lowercase();
    let power = match unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit) {
        "" if unit.ends_with("ib") => return Err(fail()),
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(fail()),
    };
    let bytes = number * 1024f64.powi(power);
    if bytes.is_finite() && (0.0..9.0e18).contains(&bytes) { Ok(bytes as i64) } else { Err(fail()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Mount, String> {
        let flag = Word { text: text.to_owned(), span: Span::new(0, text.len()) };
        Mount::read(&flag, &mut |word: &Word| Ok(word.text.clone()))
            .map_err(|wrong| wrong.iter().map(|d| format!("{} @{}", d.message, &text[d.span.range()])).collect())
            .map_err(|wrong: Vec<String>| wrong.join("; "))
    }

    #[test]
    fn defaults_follow_the_type() {
        for (text, kind, readonly) in [
            ("target=/a", MountKind::Bind, true),
            ("type=bind,target=/a,rw", MountKind::Bind, false),
            ("type=cache,target=/a", MountKind::Cache, false),
            ("type=cache,target=/a,ro=true", MountKind::Cache, true),
            ("type=tmpfs,target=/a", MountKind::Tmpfs, false),
            ("TYPE=Secret,id=x", MountKind::Secret, true),
            ("type=ssh", MountKind::Ssh, true),
        ] {
            let mount = read(text).unwrap();
            assert_eq!((mount.kind, mount.readonly), (kind, readonly), "{text}");
        }
    }

    #[test]
    fn sizes_and_quotes() {
        for (size, bytes) in
            [("64m", 64 << 20), ("1.5k", 1536), ("100", 100), ("2GiB", 2 << 30), ("10b", 10), ("1 kb", 1024)]
        {
            assert_eq!(read(&format!("type=tmpfs,size={size}")).unwrap().size, bytes, "{size}");
        }
        assert_eq!(read("type=bind,\"target=/a,b\"\"c\"").unwrap().target, "/a,b\"c");
    }

    #[test]
    fn what_is_wrong_is_told_at_its_place() {
        for (text, wanted) in [
            ("type=bnd", "`bnd` is no kind of mount @bnd"),
            ("type=tmpfs,size=x", "`x` is no size @x"),
            ("size=1", "`size` means nothing to a mount of type `bind` @size=1"),
            ("required", "`required` means nothing to a mount of type `bind` @required"),
            ("type=secret", "a secret mount needs `id` or `target` @type=secret"),
            ("type=secret,id=a,from=b", "a secret comes from the command line, and its mount has no `from` @from=b"),
            ("type=secret,id=a,sharing=shared", "a secret mount has no `sharing` @sharing=shared"),
            ("type=secret,id=a,src=b", "a secret mount has either `id` or `source`, not both @id=a"),
            ("target=/a,uid=1", "`uid` means nothing to a mount of type `bind` @uid=1"),
            ("mode=0700,type=tmpfs", "`mode` means nothing to a mount of type `tmpfs` @mode=0700"),
            ("type=ssh,sharing=locked", "`sharing` means nothing to a mount of type `ssh` @sharing=locked"),
            ("type=cache,sharing=lock", "`lock` is no way to share a cache @lock"),
            ("type=cache,mode=9", "`mode` of a mount is an octal number, as in `0755`, not `9` @9"),
            ("type=cache,tagret=/x", "a mount has no option `tagret` @tagret=/x"),
            ("target", "`target` of a mount has no value @target"),
            ("ro=maybe", "`ro` is `true` or `false`, not `maybe` @maybe"),
            ("type=bnid,required,ro=x", "`bnid` is no kind of mount @bnid; `ro` is `true` or `false`, not `x` @x"),
            (
                "uid=1,sharing=shared",
                "`uid` means nothing to a mount of type `bind` @uid=1; \
                 `sharing` means nothing to a mount of type `bind` @sharing=shared",
            ),
        ] {
            assert_eq!(read(text).unwrap_err(), wanted, "{text}");
        }
    }
}
