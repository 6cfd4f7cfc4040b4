//! Answers to `--call`, in buildx's tables and in the fields of BuildKit's `frontend/subrequests`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// An answer in both its forms; each ends with a line break.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// For people.
    pub text: String,
    /// For programs.
    pub json: String,
}

/// First and last line, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lines {
    /// The first.
    pub first: usize,
    /// The last.
    pub last: usize,
}

/// What can be built.
#[derive(Debug, Clone)]
pub struct Targets {
    /// The stages.
    pub targets: Vec<Target>,
    /// The Dockerfile's text.
    pub source: String,
}

/// A stage that can be built.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its name.
    pub name: Option<String>,
    /// Whether it is built when none is named.
    pub is_default: bool,
    /// What it is for.
    pub description: Option<String>,
    /// What it begins with, as written.
    pub base: String,
    /// `--platform`, as written.
    pub platform: Option<String>,
    /// Its `FROM`.
    pub lines: Lines,
}

/// What a target can be given.
#[derive(Debug, Clone)]
pub struct Outline {
    /// The target's name.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Build arguments.
    pub args: Vec<Arg>,
    /// Secrets.
    pub secrets: Vec<Credential>,
    /// SSH agents.
    pub ssh: Vec<Credential>,
    /// Cache mounts by id.
    pub caches: Vec<(String, Lines)>,
    /// The Dockerfile's text.
    pub source: String,
}

/// A build argument.
#[derive(Debug, Clone)]
pub struct Arg {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Its value.
    pub value: Option<String>,
    /// Its `ARG`.
    pub lines: Lines,
}

/// A secret or an SSH agent.
#[derive(Debug, Clone)]
pub struct Credential {
    /// Its id.
    pub name: String,
    /// Whether the build cannot do without.
    pub is_required: bool,
    /// The first instruction that wants it.
    pub lines: Lines,
}

/// What was found in a Dockerfile.
#[derive(Debug, Clone)]
pub struct LintResults {
    /// Findings of checks.
    pub warnings: Vec<LintWarning>,
    /// The Dockerfile's name.
    pub file: String,
    /// Its text.
    pub source: String,
    /// What keeps it from being built, and where.
    pub error: Option<(String, Option<Lines>)>,
}

/// A finding.
#[derive(Debug, Clone)]
pub struct LintWarning {
    /// The rule's name.
    pub rule: String,
    /// What the rule finds.
    pub description: Option<String>,
    /// Where to read more.
    pub url: Option<String>,
    /// What is wrong.
    pub detail: String,
    /// The instruction.
    pub lines: Lines,
}

/// What can be asked.
#[derive(Debug, Clone)]
pub struct Requests(&'static [(&'static str, &'static str)]);

impl Targets {
    /// Both forms.
    pub fn answer(&self) -> Answer {
        let mut rows = vec![["TARGET".to_owned(), "DESCRIPTION".to_owned()]];
        rows.extend(self.targets.iter().map(|target| [target.title(), target.description.clone().unwrap_or_default()]));
        let targets: Vec<Value> = self.targets.iter().map(Target::json).collect();
        Answer {
            text: columns(&rows, 1),
            json: pretty(&json!({ "targets": targets, "sources": [encode(&self.source)] })),
        }
    }
}

impl Target {
    fn title(&self) -> String {
        match (&self.name, self.is_default) {
            (None, true) => "(default)".to_owned(),
            (None, false) => String::new(),
            (Some(name), true) => format!("{name} (default)"),
            (Some(name), false) => name.clone(),
        }
    }

    fn json(&self) -> Value {
        let mut fields = Fields::default();
        fields.text("name", self.name.as_deref());
        fields.flag("default", self.is_default);
        fields.text("description", self.description.as_deref());
        fields.text("base", Some(&self.base));
        fields.text("platform", self.platform.as_deref());
        fields.place(self.lines)
    }
}

impl Outline {
    /// Both forms.
    pub fn answer(&self) -> Answer {
        Answer { text: self.text(), json: pretty(&self.json()) }
    }

    fn text(&self) -> String {
        let mut tables = Vec::new();
        if self.name.is_some() || self.description.is_some() {
            let mut rows = vec![["TARGET:".to_owned(), self.name.clone().unwrap_or_else(|| "(default)".to_owned())]];
            rows.extend(self.description.clone().map(|text| ["DESCRIPTION:".to_owned(), text]));
            tables.push(columns(&rows, 1));
        }
        if !self.args.is_empty() {
            let mut rows = vec![["BUILD ARG", "VALUE", "DESCRIPTION"].map(str::to_owned)];
            let cell = |text: &Option<String>| text.clone().unwrap_or_default();
            rows.extend(self.args.iter().map(|arg| [arg.name.clone(), cell(&arg.value), cell(&arg.description)]));
            tables.push(columns(&rows, 3));
        }
        for (head, uses) in [("SECRET", &self.secrets), ("SSH", &self.ssh)] {
            let mut rows = vec![[head.to_owned(), "REQUIRED".to_owned()]];
            let required = |used: &Credential| if used.is_required { "true".to_owned() } else { String::new() };
            rows.extend(uses.iter().map(|used| [used.name.clone(), required(used)]));
            tables.extend((!uses.is_empty()).then(|| columns(&rows, 3)));
        }
        if !self.caches.is_empty() {
            let mut rows = vec![["CACHE".to_owned()]];
            rows.extend(self.caches.iter().map(|(id, _)| [id.clone()]));
            tables.push(columns(&rows, 3));
        }
        tables.iter().map(|table| format!("{table}\n")).collect()
    }

    fn json(&self) -> Value {
        let mut outline = Fields::default();
        outline.text("name", self.name.as_deref());
        outline.text("description", self.description.as_deref());
        let arg = |arg: &Arg| {
            let mut fields = Fields::default();
            fields.set("name", json!(arg.name));
            fields.text("description", arg.description.as_deref());
            fields.text("value", arg.value.as_deref());
            fields.place(arg.lines)
        };
        let credential = |used: &Credential| {
            let mut fields = Fields::default();
            fields.set("name", json!(used.name));
            fields.flag("required", used.is_required);
            fields.place(used.lines)
        };
        let cache = |(id, lines): &(String, Lines)| {
            let mut fields = Fields::default();
            fields.set("ID", json!(id));
            fields.place(*lines)
        };
        outline.list("args", self.args.iter().map(arg));
        outline.list("secrets", self.secrets.iter().map(credential));
        outline.list("ssh", self.ssh.iter().map(credential));
        outline.list("cache", self.caches.iter().map(cache));
        outline.set("sources", json!([encode(&self.source)]));
        Value::Object(outline.0)
    }
}

impl LintResults {
    /// For programs.
    pub fn json(&self) -> String {
        let warning = |warning: &LintWarning| {
            let mut fields = Fields::default();
            fields.set("ruleName", json!(warning.rule));
            fields.text("description", warning.description.as_deref());
            fields.text("url", warning.url.as_deref());
            fields.text("detail", Some(&warning.detail));
            fields.place(warning.lines)
        };
        let mut results = Fields::default();
        results.set("warnings", self.warnings.iter().map(warning).collect());
        let source = json!({ "filename": self.file, "data": encode(&self.source), "language": "Dockerfile" });
        results.set("sources", json!([source]));
        if let Some((message, lines)) = &self.error {
            let place = lines.map_or_else(|| json!({}), location);
            results.set("buildError", json!({ "message": message, "location": place }));
        }
        pretty(&Value::Object(results.0))
    }
}

impl Requests {
    /// All that can be asked.
    pub fn all() -> Self {
        Self(&[
            ("outline", "Show what the target can be given"),
            ("targets", "List the stages that can be built"),
            ("lint", "Check the Dockerfile"),
            ("subrequests.describe", "List what can be asked"),
        ])
    }

    /// Both forms.
    pub fn answer(&self) -> Answer {
        let mut rows = vec![["NAME", "VERSION", "DESCRIPTION"].map(str::to_owned)];
        rows.extend(self.0.iter().map(|(name, text)| [name, "1.0.0", text].map(str::to_owned)));
        let request = |(name, text): &(&str, &str)| {
            let named = |names: &[&str]| -> Vec<Value> {
                names.iter().map(|name| json!({ "name": name, "description": "" })).collect()
            };
            let opts = if *name == "outline" { named(&["target"]) } else { Vec::new() };
            json!({
                "name": format!("frontend.{name}"),
                "version": "1.0.0",
                "type": "rpc",
                "description": text,
                "opts": opts,
                "inputs": null,
                "metadata": named(&["result.json", "result.txt"]),
                "refs": null,
            })
        };
        let requests: Vec<Value> = self.0.iter().map(request).collect();
        Answer { text: columns(&rows, 1), json: pretty(&Value::Array(requests)) }
    }
}

/// An object whose empty fields are left out, as Go leaves them out.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn set(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), value);
    }

    fn text(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.set(name, json!(value));
        }
    }

    fn flag(&mut self, name: &str, value: bool) {
        if value {
            self.set(name, json!(true));
        }
    }

    fn list(&mut self, name: &str, values: impl Iterator<Item = Value>) {
        let values: Vec<Value> = values.collect();
        if !values.is_empty() {
            self.set(name, Value::Array(values));
        }
    }

    fn place(mut self, lines: Lines) -> Value {
        self.set("location", location(lines));
        Value::Object(self.0)
    }
}

fn location(lines: Lines) -> Value {
    json!({ "ranges": [{ "start": { "line": lines.first }, "end": { "line": lines.last } }] })
}

fn encode(text: &str) -> String {
    STANDARD.encode(text)
}

fn pretty(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("plain data serialises");
    text.push('\n');
    text
}

/// Rows in columns as wide as their widest cell and some blanks; no blanks at the end of a line.
fn columns<const N: usize>(rows: &[[String; N]], blanks: usize) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(|column| width(column) + blanks).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<String>().trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Lines = Lines { first: 2, last: 3 };

    #[test]
    fn targets_are_listed_as_buildx_lists_them() {
        let target = |name: Option<&str>, is_default, description: Option<&str>| Target {
            name: name.map(str::to_owned),
            is_default,
            description: description.map(str::to_owned),
            base: "alpine".into(),
            platform: None,
            lines: AT,
        };
        let targets =
            vec![target(Some("build"), false, Some("compiles")), target(None, false, None), target(None, true, None)];
        let answer = Targets { targets, source: "FROM a\n".into() }.answer();
        insta::assert_snapshot!(answer.text, @"
        TARGET    DESCRIPTION
        build     compiles

        (default)
        ");
        let value: Value = serde_json::from_str(&answer.json).unwrap();
        let place = json!({ "ranges": [{ "start": { "line": 2 }, "end": { "line": 3 } }] });
        let first = json!({ "name": "build", "description": "compiles", "base": "alpine", "location": place });
        assert_eq!((&value["targets"][0], &value["targets"][2]["default"]), (&first, &json!(true)));
        assert_eq!(value["sources"], json!(["RlJPTSBhCg=="]));
    }

    #[test]
    fn an_outline_has_a_table_for_each_kind() {
        let credential = |name: &str, is_required| Credential { name: name.into(), is_required, lines: AT };
        let arg = |name: &str, value: Option<&str>, text: Option<&str>| Arg {
            name: name.into(),
            description: text.map(str::to_owned),
            value: value.map(str::to_owned),
            lines: AT,
        };
        let outline = Outline {
            name: Some("app".into()),
            description: Some("is the app".into()),
            args: vec![arg("VERSION", Some("1"), Some("is what is built")), arg("A", None, None)],
            secrets: vec![credential("npm", true)],
            ssh: vec![credential("default", false)],
            caches: vec![("/root/.cache".into(), AT)],
            source: String::new(),
        };
        let answer = outline.answer();
        insta::assert_snapshot!(answer.text, @"
        TARGET:      app
        DESCRIPTION: is the app

        BUILD ARG   VALUE   DESCRIPTION
        VERSION     1       is what is built
        A

        SECRET   REQUIRED
        npm      true

        SSH       REQUIRED
        default

        CACHE
        /root/.cache
        ");
        let value: Value = serde_json::from_str(&answer.json).unwrap();
        let place = json!({ "ranges": [{ "start": { "line": 2 }, "end": { "line": 3 } }] });
        let wanted = json!({
            "name": "app",
            "description": "is the app",
            "args": [
                { "name": "VERSION", "description": "is what is built", "value": "1", "location": place },
                { "name": "A", "location": place },
            ],
            "secrets": [{ "name": "npm", "required": true, "location": place }],
            "ssh": [{ "name": "default", "location": place }],
            "cache": [{ "ID": "/root/.cache", "location": place }],
            "sources": [""],
        });
        assert_eq!(value, wanted);
    }

    #[test]
    fn findings_have_buildx_s_fields() {
        let warning = LintWarning {
            rule: "FromAsCasing".into(),
            description: Some("casing".into()),
            url: None,
            detail: "`as`".into(),
            lines: AT,
        };
        let error = Some(("no".to_owned(), Some(AT)));
        let results = LintResults { warnings: vec![warning], file: "Dockerfile".into(), source: "x".into(), error };
        let value: Value = serde_json::from_str(&results.json()).unwrap();
        let place = json!({ "ranges": [{ "start": { "line": 2 }, "end": { "line": 3 } }] });
        let warning =
            json!({ "ruleName": "FromAsCasing", "description": "casing", "detail": "`as`", "location": place });
        let wanted = json!({
            "warnings": [warning],
            "sources": [{ "filename": "Dockerfile", "data": "eA==", "language": "Dockerfile" }],
            "buildError": { "message": "no", "location": place },
        });
        assert_eq!(value, wanted);
    }
}
