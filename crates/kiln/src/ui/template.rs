//! The part of Go's templates that people use with `--format`: fields, a few functions, `if`, `range`.
//!
//! ```text
//! {{.Id}}   {{json .Config.Env}}   {{index .Config.Labels "a.b"}}   {{range .RepoTags}}{{println .}}{{end}}
//! ```

use serde_json::{Map, Value};

/// Says why a text is no template, or does not fit the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct TemplateError(String);

fn wrong<T>(message: impl Into<String>) -> Result<T, TemplateError> {
    Err(TemplateError(message.into()))
}

/// What a field is that a value does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Nothing: what others wrote leaves out what it does not need.
    NoValue,
    /// A mistake: all fields are always there.
    Wrong,
    /// Nothing where Go would find a field of this name, a mistake elsewhere; and fields of documents are found by Go's
    /// names for them: `MediaType` is `mediaType`.
    WireName(Known),
}

/// The names that Go knows in documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    /// Fields, wherever they are: words.
    pub(crate) fields: &'static str,
    /// Fields below which any name may be.
    pub(crate) maps: &'static str,
}

/// What a template is filled in with.
#[derive(Clone, Copy)]
struct Scope<'a> {
    root: &'a Value,
    missing: Missing,
}

/// A template, read.
#[derive(Debug)]
pub(crate) struct Template(Vec<Node>);

#[derive(Debug)]
enum Node {
    Text(String),
    Print(Vec<Call>),
    If { condition: Vec<Call>, then: Vec<Node>, otherwise: Vec<Node> },
    Range { over: Vec<Call>, each: Vec<Node>, otherwise: Vec<Node> },
}

/// A function with its arguments, or a single value; several make a pipeline.
type Call = Vec<Word>;

#[derive(Debug, Clone)]
enum Word {
    Path(Vec<String>),
    /// A pipeline in parentheses, and a path into what it gives.
    Group(Vec<Call>, Vec<String>),
    Literal(Value),
    Function(String),
}

impl Template {
    /// Reads a template. `\t` and `\n` written out are tabs and line breaks, as docker has it.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parser = Parser { rest: text, depth: 0 };
        let (nodes, end) = parser.nodes()?;
        match end {
            End::Text => Ok(Self(nodes)),
            End::Else | End::Closed => wrong("`{{end}}` or `{{else}}` closes nothing"),
        }
    }

    /// Fills it in.
    pub(crate) fn render(&self, value: &Value, missing: Missing) -> Result<String, TemplateError> {
        let mut out = String::new();
        render(&self.0, value, Scope { root: value, missing }, &mut out)?;
        Ok(out)
    }
}

fn render(nodes: &[Node], dot: &Value, scope: Scope<'_>, out: &mut String) -> Result<(), TemplateError> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Print(pipeline) => out.push_str(&display(&evaluate(pipeline, dot, scope)?)),
            Node::If { condition, then, otherwise } => {
                let branch = if is_true(&evaluate(condition, dot, scope)?) { then } else { otherwise };
                render(branch, dot, scope, out)?;
            }
            Node::Range { over, each, otherwise } => match items(evaluate(over, dot, scope)?)? {
                items if items.is_empty() => render(otherwise, dot, scope, out)?,
                items => {
                    let scope = scope.within(over);
                    items.iter().try_for_each(|item| render(each, item, scope, out))?;
                }
            },
        }
    }
    Ok(())
}

fn items(value: Value) -> Result<Vec<Value>, TemplateError> {
    match value {
        Value::Array(items) => Ok(items),
        Value::Object(map) => Ok(map.into_iter().map(|(_, value)| value).collect()),
        Value::Null => Ok(Vec::new()),
        other => wrong(format!("cannot range over `{}`", display(&other))),
    }
}

fn evaluate(pipeline: &[Call], dot: &Value, scope: Scope<'_>) -> Result<Value, TemplateError> {
    let mut carried: Option<Value> = None;
    for call in pipeline {
        let mut arguments = Vec::new();
        let mut function = None;
        for (at, word) in call.iter().enumerate() {
            match word {
                Word::Function(name) if at == 0 => function = Some(name.as_str()),
                Word::Function(name) => return wrong(format!("`{name}` is not a value")),
                Word::Literal(value) => arguments.push(value.clone()),
                Word::Path(path) => arguments.push(field(path, dot, scope)?),
                Word::Group(calls, path) => arguments.push(field(path, &evaluate(calls, dot, scope)?, scope)?),
            }
        }
        arguments.extend(carried.take());
        carried = Some(match function {
            Some(name) => apply(name, &arguments)?,
            None if arguments.len() == 1 => arguments.remove(0),
            None => return wrong("expected one value or a function"),
        });
    }
    Ok(carried.unwrap_or(Value::Null))
}

/// A path; `$` at its beginning is the whole value.
fn field(path: &[String], dot: &Value, scope: Scope<'_>) -> Result<Value, TemplateError> {
    let (start, path) = match path.split_first() {
        Some((first, rest)) if first == "$" => (scope.root, rest),
        _ => (dot, path),
    };
    path.iter().enumerate().try_fold(start.clone(), |value, (at, name)| match value {
        Value::Object(mut map) => match map.remove(name) {
            Some(value) => Ok(value),
            None => scope.missing.field(map, name, &path[..at]),
        },
        Value::Null => Ok(Value::Null),
        other => wrong(format!("`{}` has no field `{name}`", display(&other))),
    })
}

impl Missing {
    /// What a name stands for that an object does not have; `path` leads to the object.
    fn field(self, map: Map<String, Value>, name: &str, path: &[String]) -> Result<Value, TemplateError> {
        let known = match self {
            Self::NoValue => return Ok(Value::Null),
            Self::Wrong => {
                let known: Vec<String> = map.keys().map(|name| format!("`{name}`")).collect();
                return wrong(format!("there is no field `{name}`: choose from {}", known.join(", ")));
            }
            Self::WireName(known) => known,
        };
        match map.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)) {
            Some((_, value)) => Ok(value),
            None if known.is_field(name) || path.iter().any(|name| known.is_map(name)) => Ok(Value::Null),
            None => wrong(format!("there is no field `{name}`")),
        }
    }
}

impl Known {
    fn is_field(&self, name: &str) -> bool {
        self.fields.split(' ').any(|field| field == name)
    }

    fn is_map(&self, name: &str) -> bool {
        self.maps.split(' ').any(|map| map == name)
    }
}

impl Scope<'_> {
    /// For items of what a pipeline gives: those of maps have any fields.
    fn within(self, pipeline: &[Call]) -> Self {
        let Missing::WireName(known) = self.missing else { return self };
        match pipeline.iter().flatten().any(|word| word.leads_through(&known)) {
            true => Self { missing: Missing::NoValue, ..self },
            false => self,
        }
    }
}

impl Word {
    fn leads_through(&self, known: &Known) -> bool {
        match self {
            Self::Path(path) => path.iter().any(|name| known.is_map(name)),
            Self::Group(calls, path) => {
                path.iter().any(|name| known.is_map(name))
                    || calls.iter().flatten().any(|word| word.leads_through(known))
            }
            Self::Literal(_) | Self::Function(_) => false,
        }
    }
}

fn apply(name: &str, arguments: &[Value]) -> Result<Value, TemplateError> {
    match (name, arguments) {
        ("json", [value]) => Ok(Value::String(value.to_string())),
        ("len", [Value::Array(items)]) => Ok(items.len().into()),
        ("len", [Value::Object(map)]) => Ok(map.len().into()),
        ("len", [Value::String(text)]) => Ok(text.len().into()),
        ("len", [Value::Null]) => Ok(0.into()),
        ("index", [value, keys @ ..]) => keys.iter().try_fold(value.clone(), |value, key| index(&value, key)),
        ("join", [Value::Array(items), Value::String(separator)]) => {
            Ok(items.iter().map(display).collect::<Vec<_>>().join(separator).into())
        }
        ("join", [Value::Null, _]) => Ok("".into()),
        ("split", [Value::String(text), Value::String(separator)]) => Ok(text.split(separator.as_str()).collect()),
        ("upper", [Value::String(text)]) => Ok(text.to_uppercase().into()),
        ("lower", [Value::String(text)]) => Ok(text.to_lowercase().into()),
        ("title", [Value::String(text)]) => Ok(title(text).into()),
        ("print", values) => Ok(values.iter().map(display).collect::<String>().into()),
        ("println", values) => Ok((values.iter().map(display).collect::<Vec<_>>().join(" ") + "\n").into()),
        ("not", [value]) => Ok((!is_true(value)).into()),
        ("and", [first, .., last]) => Ok(if is_true(first) { last } else { first }.clone()),
        ("or", [first, .., last]) => Ok(if is_true(first) { first } else { last }.clone()),
        ("eq", [first, rest @ ..]) if !rest.is_empty() => Ok(rest.contains(first).into()),
        ("ne", [first, second]) => Ok((first != second).into()),
        _ => wrong(format!("`{name}` does not take these {} arguments", arguments.len())),
    }
}

fn index(value: &Value, key: &Value) -> Result<Value, TemplateError> {
    match (value, key) {
        (Value::Object(map), Value::String(key)) => Ok(map.get(key).cloned().unwrap_or_else(|| "".into())),
        (Value::Null, Value::String(_)) => Ok("".into()),
        (Value::Array(items), Value::Number(at)) => {
            let item = at.as_u64().and_then(|at| items.get(usize::try_from(at).ok()?));
            item.cloned().ok_or_else(|| TemplateError(format!("index {at} is out of range: there are {}", items.len())))
        }
        _ => wrong(format!("cannot index `{}` with `{}`", display(value), display(key))),
    }
}

fn title(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// As Go prints values.
fn display(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(display).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let fields: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{}", display(value))).collect();
            format!("map[{}]", fields.join(" "))
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

/// Blocks within blocks; nobody writes more, and each takes a piece of the stack.
const MAX_DEPTH: usize = 100;

/// What ended a list of nodes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Text,
    Else,
    Closed,
}

impl Parser<'_> {
    fn nodes(&mut self) -> Result<(Vec<Node>, End), TemplateError> {
        let mut nodes = Vec::new();
        loop {
            let Some((text, after)) = self.rest.split_once("{{") else {
                nodes.push(Node::Text(unescaped(std::mem::take(&mut self.rest))));
                return Ok((nodes, End::Text));
            };
            let Some(end) = action_end(after) else { return wrong("`{{` is not closed") };
            let (action, rest) = (&after[..end], &after[end + 2..]);
            let text = unescaped(text);
            let (text, action, rest) = trim_around(&text, action, rest);
            nodes.push(Node::Text(text.to_owned()));
            self.rest = rest;
            match action.split_whitespace().next() {
                Some("end") => return Ok((nodes, End::Closed)),
                Some("else") => return Ok((nodes, End::Else)),
                Some("if") => {
                    let condition = pipeline(&action[2..])?;
                    let (then, otherwise) = self.branches("if")?;
                    nodes.push(Node::If { condition, then, otherwise });
                }
                Some("range") => {
                    let over = pipeline(&action[5..])?;
                    let (each, otherwise) = self.branches("range")?;
                    nodes.push(Node::Range { over, each, otherwise });
                }
                _ => nodes.push(Node::Print(pipeline(action)?)),
            }
        }
    }

    fn branches(&mut self, of: &str) -> Result<(Vec<Node>, Vec<Node>), TemplateError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return wrong(format!("blocks are nested more than {MAX_DEPTH} deep"));
        }
        let (then, end) = self.nodes()?;
        let (otherwise, end) = if end == End::Else { self.nodes()? } else { (Vec::new(), end) };
        match end {
            End::Closed => {
                self.depth -= 1;
                Ok((then, otherwise))
            }
            End::Text | End::Else => wrong(format!("`{{{{{of}}}}}` has no `{{{{end}}}}`")),
        }
    }
}

/// Tabs and line breaks that are written out, as docker has it. What is quoted in an action is read there.
fn unescaped(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

/// `{{-` and `-}}` eat the white space beside them.
fn trim_around<'t, 'a>(text: &'t str, action: &'a str, rest: &'a str) -> (&'t str, &'a str, &'a str) {
    let (text, action) = match action.strip_prefix("- ") {
        Some(action) => (text.trim_end(), action),
        None => (text, action),
    };
    match action.strip_suffix(" -") {
        Some(action) => (text, action.trim(), rest.trim_start()),
        None => (text, action.trim(), rest),
    }
}

/// Where `}}` ends an action; those inside of quotes do not.
fn action_end(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut is_escaped = false;
    for (at, c) in text.char_indices() {
        match quote {
            Some('"') if c == '\\' && !is_escaped => {
                is_escaped = true;
                continue;
            }
            Some(open) if c == open && !is_escaped => quote = None,
            Some(_) => {}
            None if c == '"' || c == '`' => quote = Some(c),
            None if text[at..].starts_with("}}") => return Some(at),
            None => {}
        }
        is_escaped = false;
    }
    None
}

fn pipeline(text: &str) -> Result<Vec<Call>, TemplateError> {
    let mut calls = vec![Call::new()];
    let mut rest = text.trim_start();
    while let Some(c) = rest.chars().next() {
        if c == '|' {
            calls.push(Call::new());
            rest = rest[1..].trim_start();
            continue;
        }
        let word;
        (word, rest) = next_word(rest)?;
        calls.last_mut().expect("there is always one").push(word);
        rest = rest.trim_start();
    }
    match calls.iter().any(Vec::is_empty) {
        true => wrong(format!("`{{{{{text}}}}}` lacks a value")),
        false => Ok(calls),
    }
}

fn next_word(text: &str) -> Result<(Word, &str), TemplateError> {
    if text.starts_with('"') {
        let mut values = serde_json::Deserializer::from_str(text).into_iter::<String>();
        let value = values.next().and_then(Result::ok).ok_or_else(|| TemplateError("a quote is not closed".into()))?;
        let used = values.byte_offset();
        return Ok((Word::Literal(value.into()), &text[used..]));
    }
    if let Some(raw) = text.strip_prefix('`') {
        let Some((value, rest)) = raw.split_once('`') else { return wrong("a quote is not closed") };
        return Ok((Word::Literal(value.into()), rest));
    }
    let names = |path: &str| path.split('.').filter(|name| !name.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let after = |text: &str| text.find(|c: char| c.is_whitespace() || matches!(c, '|' | ')')).unwrap_or(text.len());
    if let Some(inner) = text.strip_prefix('(') {
        let end = closing(inner)?;
        let (path, rest) = inner[end + 1..].split_at(after(&inner[end + 1..]));
        return Ok((Word::Group(pipeline(&inner[..end])?, names(path)), rest));
    }
    let (word, rest) = text.split_at(after(text));
    let word = if let Some(path) = word.strip_prefix('.') {
        Word::Path(names(path))
    } else if let Some(path) = word.strip_prefix('$') {
        Word::Path(std::iter::once("$".to_owned()).chain(names(path)).collect())
    } else if let Ok(number) = word.parse::<i64>() {
        Word::Literal(number.into())
    } else if matches!(word, "true" | "false") {
        Word::Literal((word == "true").into())
    } else if FUNCTIONS.contains(&word) {
        Word::Function(word.to_owned())
    } else {
        return wrong(format!("`{word}` is no function that kiln knows: it has {}", FUNCTIONS.join(", ")));
    };
    Ok((word, rest))
}

/// Where the parenthesis ends that was opened before; those in quotes do not count.
fn closing(text: &str) -> Result<usize, TemplateError> {
    let (mut depth, mut quote, mut is_escaped) = (0_usize, None, false);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some('"'), '\\') if !is_escaped => {
                is_escaped = true;
                continue;
            }
            (Some(open), c) if c == open && !is_escaped => quote = None,
            (Some(_), _) => {}
            (None, '"' | '`') => quote = Some(c),
            (None, '(') if depth == MAX_DEPTH => return wrong(format!("`(` is nested more than {MAX_DEPTH} deep")),
            (None, '(') => depth += 1,
            (None, ')') if depth == 0 => return Ok(at),
            (None, ')') => depth -= 1,
            (None, _) => {}
        }
        is_escaped = false;
    }
    wrong("a `(` is not closed")
}

const FUNCTIONS: [&str; 15] = [
    "json", "index", "len", "join", "split", "upper", "lower", "title", "print", "println", "not", "and", "or", "eq",
    "ne",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn show(template: &str) -> Result<String, String> {
        let value = serde_json::json!({
            "Id": "sha256:1", "Size": 42, "Tags": ["a:1", "b:2"], "None": null, "Yes": true,
            "All": [{"Id": "x"}],
            "Config": {"User": "", "Labels": {"a.b": "c", "d": "e"}, "Cmd": ["sh", "-c"]},
        });
        let template = Template::parse(template).map_err(|e| e.to_string())?;
        template.render(&value, Missing::NoValue).map_err(|e| e.to_string())
    }

    #[test]
    fn values_print_as_go_prints_them() {
        for (template, text) in [
            ("{{.Id}}", "sha256:1"),
            ("{{ .Size }} bytes", "42 bytes"),
            ("{{.Tags}}", "[a:1 b:2]"),
            ("{{.Config.Labels}}", "map[a.b:c d:e]"),
            ("{{.None}} {{.Nothing.At.All}}", "<no value> <no value>"),
            ("[{{.Config.User}}]", "[]"),
            ("{{json .Config.Cmd}}", r#"["sh","-c"]"#),
            ("{{.Config.Cmd | json}}", r#"["sh","-c"]"#),
            (r#"{{index .Config.Labels "a.b"}}{{index .Config.Labels "x"}}"#, "c"),
            ("{{index .Tags 1}}", "b:2"),
            (r#"{{join .Tags ", "}}"#, "a:1, b:2"),
            (r#"{{join .Tags "\n"}}"#, "a:1\nb:2"),
            (r#"{{json (index .Config.Labels "a.b")}} {{len (split (index .Tags 0) ":")}}"#, "\"c\" 2"),
            ("{{(index .All 0).Id}}{{(index .All 0).No.Id | json}}", "xnull"),
            ("{{len .Tags}}\\t{{upper .Id}}\\n", "2\tSHA256:1\n"),
            ("{{range .Tags}}{{println .}}{{end}}", "a:1\nb:2\n"),
            ("{{range .None}}x{{else}}none{{end}}", "none"),
            ("{{range .Tags}}{{$.Size}}{{end}}", "4242"),
            ("{{if .Yes}}yes{{else}}no{{end}}{{if .Config.User}}user{{end}}", "yes"),
            ("{{if eq .Size 42}}42{{end}} {{- `}}` }}", "42}}"),
            ("no template", "no template"),
        ] {
            assert_eq!(show(template).as_deref(), Ok(text), "{template}");
        }
    }

    #[test]
    fn what_does_not_fit_says_why() {
        for (template, message) in [
            ("{{.Id", "`{{` is not closed"),
            ("{{end}}", "`{{end}}` or `{{else}}` closes nothing"),
            ("{{if .Id}}x", "`{{if}}` has no `{{end}}`"),
            ("{{.Id.X}}", "`sha256:1` has no field `X`"),
            ("{{index .Tags 7}}", "index 7 is out of range: there are 2"),
            ("{{len 1}}", "`len` does not take these 1 arguments"),
            ("{{}}", "`{{}}` lacks a value"),
            (r#"{{index .Tags "1}}"#, "`{{` is not closed"),
            ("{{len (index .Tags 0}}", "a `(` is not closed"),
        ] {
            assert_eq!(show(template).unwrap_err(), message, "{template}");
        }
        let row = serde_json::json!({"ID": "1", "Size": "2B"});
        let show_row = |text| Template::parse(text).unwrap().render(&row, Missing::Wrong).map_err(|e| e.to_string());
        assert_eq!(show_row("{{.ID}}").unwrap(), "1");
        assert_eq!(show_row("{{.Nope}}").unwrap_err(), "there is no field `Nope`: choose from `ID`, `Size`");
        let known = Known { fields: "Author Config", maps: "Labels" };
        let image = serde_json::json!({"config": {"Labels": {"a": "b"}, "Cmd": [{"x": 1}]}, "all": {"Labels": {"p": {"q": 1}}}});
        let show_image =
            |text| Template::parse(text).unwrap().render(&image, Missing::WireName(known)).map_err(|e| e.to_string());
        for (text, shown) in [
            ("{{.Author}} {{.Config.Labels.a}} {{.Config.Labels.x}}", "<no value> b <no value>"),
            ("{{range .all.Labels}}{{.q}} {{.r}}{{end}}", "1 <no value>"),
        ] {
            assert_eq!(show_image(text).unwrap(), shown);
        }
        for text in ["{{.Nope}}", "{{.Config.Nope}}", "{{range .Config.Cmd}}{{.Nope}}{{end}}", "{{.Nope.Labels}}"] {
            assert_eq!(show_image(text).unwrap_err(), "there is no field `Nope`", "{text}");
        }
        assert!(show("{{frob .Id}}").unwrap_err().starts_with("`frob` is no function that kiln knows"));
    }
}
