//! Knows commands that install dependencies, and which files of a project say what they install.

/// An installation of dependencies within a `RUN`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Install {
    /// The command, as far as it says what it is.
    command: String,
    /// What is read of the context: a manifest, and whether it has a lock file. Nothing for packages of the system.
    manifest: Option<String>,
    /// Further files that count as manifests.
    others: &'static [&'static str],
}

/// First words, manifest, lock files and their like. Commands that build the project too are not among them.
const TOOLS: &[(&[&str], &str, &[&str])] = &[
    (&["npm", "ci"], "package.json", &["package-lock.json", "npm-shrinkwrap.json", ".npmrc"]),
    (&["npm", "install"], "package.json", &["package-lock.json", "npm-shrinkwrap.json", ".npmrc"]),
    (&["yarn", "install"], "package.json", &["yarn.lock", ".yarnrc", ".yarnrc.yml"]),
    (&["pnpm", "install"], "package.json", &["pnpm-lock.yaml", "pnpm-workspace.yaml", ".npmrc"]),
    (&["bundle", "install"], "Gemfile", &["Gemfile.lock"]),
    (&["go", "mod", "download"], "go.mod", &["go.sum", "go.work", "go.work.sum"]),
    (&["cargo", "fetch"], "Cargo.toml", &["Cargo.lock"]),
    (&["mvn", "dependency:go-offline"], "pom.xml", &[]),
    (&["mvn", "dependency:resolve"], "pom.xml", &[]),
];

/// Installers of packages of the system, which read nothing of the context.
const SYSTEM: &[(&str, &str)] = &[
    ("apt-get", "install"),
    ("apt", "install"),
    ("apk", "add"),
    ("dnf", "install"),
    ("yum", "install"),
    ("microdnf", "install"),
];

/// The first installation in the text of a `RUN`.
pub(super) fn install(run: &str) -> Option<Install> {
    let joined = run.replace("\\\n", " ");
    let script = joined.trim_start().split_once(char::is_whitespace)?.1;
    script.split(['\n', ';', '&', '|']).find_map(installs)
}

/// What one command installs.
fn installs(command: &str) -> Option<Install> {
    let is_redirect = |word: &str| word.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with(['>', '<']);
    let words = command.split_whitespace().skip_while(|word| word.starts_with("--"));
    let words: Vec<&str> = words.take_while(|word| !is_redirect(word)).collect();
    let plain: Vec<&str> = words.iter().copied().filter(|word| !word.starts_with('-')).collect();
    if let Some(at) = words.iter().position(|word| matches!(*word, "pip" | "pip3")) {
        return requirements(&words[at..]);
    }
    let system = SYSTEM.iter().find(|(tool, verb)| plain.starts_with(&[tool, verb]));
    if let Some((tool, verb)) = system {
        // A package may be a file of the context.
        let is_by_name = !plain[2..].iter().any(|word| word.contains('/') || word.contains('$'));
        return is_by_name.then(|| Install { command: format!("{tool} {verb}"), manifest: None, others: &[] });
    }
    let (words, manifest, others) = TOOLS.iter().find(|(words, ..)| plain == *words)?;
    Some(Install { command: words.join(" "), manifest: Some((*manifest).to_owned()), others })
}

/// `pip install -r FILE`, if it installs nothing but that.
fn requirements(words: &[&str]) -> Option<Install> {
    let at = words.iter().position(|word| matches!(*word, "-r" | "--requirement"))?;
    let file = words.get(at + 1)?;
    let rest = words.iter().enumerate().filter(|(n, word)| *n != at + 1 && !word.starts_with('-'));
    let rest: Vec<&str> = rest.map(|(_, word)| *word).skip(1).collect();
    let is_plain = rest == ["install"] && !file.contains(['/', '$']);
    is_plain.then(|| Install { command: "pip install".to_owned(), manifest: Some((*file).to_owned()), others: &[] })
}

impl Install {
    /// Whether it reads a file of the context, by any path.
    pub(super) fn reads(&self, path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path);
        self.manifest.as_deref() == Some(name) || self.others.contains(&name)
    }

    /// What to do about a copy above it.
    pub(super) fn advice(&self, copy: &str, copied: usize, installed: usize) -> String {
        let Self { command, manifest, others } = self;
        let fact =
            format!("`{copy}` (line {copied}) makes `{command}` (line {installed}) run whenever any file changes");
        let Some(manifest) = manifest else {
            return format!("{fact}, though it reads none: install in a `RUN` above line {copied}");
        };
        let lock = if others.is_empty() { "" } else { " and its lock file" };
        format!("{fact}: copy `{manifest}`{lock} first, install, and copy the rest then")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installations_are_known_by_their_first_words() {
        let found = |run: &str| install(run).map(|found| (found.command, found.manifest.unwrap_or_default()));
        for (run, command, manifest) in [
            ("RUN npm ci", "npm ci", "package.json"),
            ("RUN npm ci 2>/dev/null", "npm ci", "package.json"),
            ("RUN --mount=type=cache,target=/c npm install --omit=dev", "npm install", "package.json"),
            ("RUN apk add --no-cache gcc", "apk add", ""),
            ("RUN apt-get update \\\n && apt-get install -y gcc", "apt-get install", ""),
            ("RUN python -m pip install --no-cache-dir -r requirements.txt", "pip install", "requirements.txt"),
            ("RUN go mod download && go build", "go mod download", "go.mod"),
        ] {
            assert_eq!(found(run), Some((command.to_owned(), manifest.to_owned())), "{run}");
        }
        for run in [
            "RUN npm run build",
            "RUN npm install left-pad",
            "RUN npm install a>=1",
            "RUN pip install .",
            "RUN pip install -r a.txt .",
            "RUN pip install -r sub/a.txt",
            "RUN apt-get install -y ./a.deb",
            "RUN echo npm ci",
            "RUN",
        ] {
            assert_eq!(found(run), None, "{run}");
        }
    }

    #[test]
    fn manifests_are_known_wherever_they_are() {
        let npm = install("RUN npm ci").unwrap();
        assert!(npm.reads("web/package-lock.json") && npm.reads("package.json") && !npm.reads("src/main.js"));
        assert!(!install("RUN apk add gcc").unwrap().reads("package.json"));
    }
}
