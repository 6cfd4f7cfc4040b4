//! The house rules, as a test: sizes, first sentences, which crate may know which, links, and words that stay out.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Which of our crates a crate may depend on (docs/architecture.md); its tests may use more.
const ARROWS: &[(&str, &[&str])] = &[
    ("kiln-oci", &[]),
    ("kiln-report", &["oci"]),
    ("kiln-graph", &["oci", "report"]),
    ("kiln-dockerfile", &["oci", "report", "graph"]),
    ("kiln-lint", &["report", "dockerfile"]),
    ("kiln-sys", &[]),
    ("kiln-fs", &["oci", "sys"]),
    ("kiln-store", &["oci", "sys", "fs"]),
    ("kiln-exec", &["sys", "fs"]),
    ("kiln-image", &["oci", "report"]),
    ("kiln-solver", &["oci", "report", "graph"]),
    ("kiln-engine", &["oci", "report", "graph", "dockerfile", "lint", "sys", "fs", "store", "exec", "image", "solver"]),
    ("kiln-api", &["engine", "graph", "report", "oci", "fs"]),
    ("kiln", &["api", "engine", "dockerfile", "lint", "report", "oci"]),
    ("kiln-testkit", &["oci"]),
];

const MOST_LINES: usize = 800;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Every file git would take: tracked, or new and not ignored.
fn files() -> Vec<PathBuf> {
    let root = root();
    #[expect(clippy::disallowed_methods, reason = "git knows which files are ours")]
    let output = std::process::Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(&root)
        .output()
        .unwrap();
    assert!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).unwrap();
    let files: Vec<PathBuf> = names
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(PathBuf::from)
        .filter(|f| root.join(f).is_file())
        .collect();
    assert!(files.len() > 50, "git lists only {} files", files.len());
    files
}

fn with_extension(extension: &str) -> impl Iterator<Item = (PathBuf, String)> {
    let root = root();
    let wanted: Vec<PathBuf> = files().into_iter().filter(|f| f.extension().is_some_and(|e| e == extension)).collect();
    wanted.into_iter().filter_map(move |file| {
        let text = std::fs::read_to_string(root.join(&file)).ok()?;
        Some((file, text))
    })
}

fn report(broken: Vec<String>) {
    assert!(broken.is_empty(), "{} broken rules:\n{}", broken.len(), broken.join("\n"));
}

/// `build.rs` output and fixtures that are Rust by name only.
fn is_ours(file: &Path) -> bool {
    !file.components().any(|part| part.as_os_str() == "fixtures")
}

#[test]
fn files_are_short() {
    let long = |(file, text): (PathBuf, String)| {
        let lines = text.lines().count();
        let exempt = text.lines().take(3).any(|line| line.trim() == "// tidy: table");
        (lines > MOST_LINES && !exempt).then(|| format!("{}: {lines} lines, at most {MOST_LINES}", file.display()))
    };
    report(with_extension("rs").filter_map(long).collect());
}

#[test]
fn files_begin_with_their_job() {
    let jobless = |(file, text): (PathBuf, String)| {
        let first = text.lines().next().unwrap_or_default();
        let good = first.starts_with("//! ") || first.starts_with("// tidy:");
        (is_ours(&file) && !good).then(|| format!("{}: begins with `{first:.60}`, not with `//! `", file.display()))
    };
    report(with_extension("rs").filter_map(jobless).collect());
}

/// The `kiln-*` names in the `[dependencies]` and `[build-dependencies]` tables of a manifest.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut counts = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(table) = line.strip_prefix('[') {
            let table = table.trim_end_matches(']');
            counts = table.ends_with("dependencies") && !table.contains("dev-dependencies");
            let inline = table.rsplit_once("dependencies.").filter(|_| !table.contains("dev-dependencies"));
            found.extend(inline.map(|(_, name)| name.to_owned()));
        } else if counts && let Some(name) = line.split(['=', '.']).next().map(str::trim) {
            found.push(name.to_owned());
        }
    }
    found.retain(|name| name == "kiln" || name.starts_with("kiln-"));
    found
}

#[test]
fn arrows_point_down() {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut broken = Vec::new();
    let mut seen = 0;
    for (file, text) in with_extension("toml").filter(|(file, _)| file.ends_with("Cargo.toml")) {
        let Some(name) = file.parent().and_then(Path::file_name).and_then(|n| n.to_str()) else { continue };
        if !file.starts_with("crates") {
            continue;
        }
        seen += 1;
        let Some(arrows) = allowed.get(name) else {
            broken.push(format!("{name}: a crate the architecture does not know"));
            continue;
        };
        for dependency in dependencies(&text) {
            let short = dependency.trim_start_matches("kiln-");
            if !arrows.contains(&short) {
                broken.push(format!("{name}: may not depend on {dependency}"));
            }
        }
    }
    assert!(seen >= 13, "only {seen} crates found");
    report(broken);
}

#[test]
fn the_arrow_reader_sees_all_spellings() {
    let manifest = "[package]\nname = \"x\"\n[dependencies]\nkiln-oci.workspace = true\nkiln-fs = { path = \"x\" }\n\
                    serde = \"1\"\n[dependencies.kiln-sys]\nworkspace = true\n[target.'cfg(unix)'.dependencies]\n\
                    kiln-store.workspace = true\n[build-dependencies]\nkiln-exec = \"0\"\n[dev-dependencies]\n\
                    kiln-testkit.workspace = true\n[dev-dependencies.kiln-graph]\nworkspace = true\n";
    assert_eq!(dependencies(manifest), ["kiln-oci", "kiln-fs", "kiln-sys", "kiln-store", "kiln-exec"]);
}

/// Where a word stands in a text, as `file:line`.
fn lines_with(file: &Path, text: &str, word: &str) -> Vec<String> {
    let hits = text.lines().enumerate().filter(|(_, line)| line.contains(word));
    hits.map(|(number, line)| format!("{}:{}: `{word}` in `{:.80}`", file.display(), number + 1, line.trim())).collect()
}

// Split, so that the rules do not find themselves.
const UNFINISHED: &[&str] = &[concat!("#[ign", "ore"), concat!("tod", "o!("), concat!("unimpl", "emented!(")];

#[test]
fn nothing_is_unfinished() {
    let hits = with_extension("rs")
        .flat_map(|(file, text)| UNFINISHED.iter().flat_map(|word| lines_with(&file, &text, word)).collect::<Vec<_>>());
    report(hits.collect());
}

/// Hosts of package registries, and where files lie on one of our machines.
const PRIVATE: &[&str] = &[
    concat!("crates", ".io"),
    concat!("pypi", ".org"),
    concat!("pythonhosted", ".org"),
    concat!("registry.npm", "js.org"),
    concat!("deb.deb", "ian.org"),
    concat!("proxy.gol", "ang.org"),
    concat!("rubyge", "ms.org"),
    concat!("/wor", "k/main"),
    concat!("/wor", "k/shared"),
    concat!("/wor", "k/."),
    concat!("/Use", "rs/"),
    concat!("/.car", "go/registry"),
    concat!("/.rust", "up/"),
];

#[test]
fn no_machine_of_ours_and_no_package_registry_is_named() {
    let root = root();
    let mut broken = Vec::new();
    for file in files() {
        if file.ends_with("Cargo.lock") {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(root.join(&file)) else { continue };
        for word in PRIVATE {
            broken.extend(lines_with(&file, &text, word));
        }
    }
    report(broken);
}

/// Targets of `[text](target)` outside code blocks.
fn links(markdown: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_code = false;
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        let plain: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        found.extend(plain.split("](").skip(1).filter_map(|rest| rest.split(')').next()).map(str::to_owned));
    }
    found
}

#[test]
fn links_lead_somewhere() {
    let root = root();
    let mut broken = Vec::new();
    for (file, text) in with_extension("md") {
        for link in links(&text) {
            let path = link.split(['#', ' ']).next().unwrap_or_default();
            if path.is_empty() || path.contains("://") || path.starts_with("mailto:") {
                continue;
            }
            let target = root.join(file.parent().unwrap()).join(path);
            if !target.exists() {
                broken.push(format!("{}: `{link}` leads nowhere", file.display()));
            }
        }
    }
    report(broken);
}

#[test]
fn the_link_reader_skips_code() {
    let text = "[a](x.md) and [b](y.md#z)\n```\n[c](no.md)\n```\n`[d](no.md)` ![e](z.png \"title\")";
    assert_eq!(links(text), ["x.md", "y.md#z", "z.png \"title\""]);
}

#[test]
fn what_the_security_boundary_names_is_a_test() {
    let text = std::fs::read_to_string(root().join("docs/security-boundary.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with('|') && line.contains('`'));
    let cells = rows.filter_map(|row| row.trim_end_matches('|').rsplit('|').next());
    let names: Vec<&str> = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    assert!(names.len() > 40, "only {} tests are named", names.len());
    let tests: String = with_extension("rs")
        .filter(|(_, text)| text.contains("#[test]") || text.contains("::test]"))
        .map(|(_, text)| text)
        .collect();
    let missing = names.iter().filter(|name| !tests.contains(&format!("fn {name}()")));
    report(missing.map(|name| format!("docs/security-boundary.md: there is no test `{name}`")).collect());
}

#[test]
fn every_dependency_has_its_reason() {
    let reasons = std::fs::read_to_string(root().join("docs/dependencies.md")).unwrap();
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let table = manifest.split("[workspace.dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    let names = table.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name.trim());
    let wanted = names.filter(|name| !name.starts_with("kiln") && !reasons.contains(&format!("`{name}`")));
    report(wanted.map(|name| format!("`{name}` has no line in docs/dependencies.md")).collect());
}

/// What of `clippy.toml` holds everywhere: all but the calls that take paths.
fn without_paths(text: &str) -> String {
    let is_of_paths = |line: &&str| line.contains("`kiln_sys::root::Root`") || line.starts_with("    #");
    text.lines().filter(|line| !is_of_paths(line)).map(|line| format!("{line}\n")).collect()
}

#[test]
fn every_crate_has_the_lints_of_all_and_paths_of_strangers_are_refused() {
    let (root, all) = (root(), std::fs::read_to_string(root().join("clippy.toml")).unwrap());
    assert!(all.lines().count() > without_paths(&all).lines().count() + 40, "paths are no longer refused");
    let lax: Vec<PathBuf> = files().into_iter().filter(|file| file.ends_with("clippy.toml")).collect();
    let wanted =
        ["clippy.toml", "crates/kiln-image/clippy.toml", "crates/kiln-testkit/clippy.toml", "crates/kiln/clippy.toml"];
    let mut names: Vec<_> = lax.iter().map(|file| file.to_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, wanted, "crates that see paths of strangers have no `clippy.toml` of their own");
    for file in lax.iter().filter(|file| file.components().count() > 1) {
        assert_eq!(std::fs::read_to_string(root.join(file)).unwrap(), without_paths(&all), "{}", file.display());
    }
}

/// An `expect` for a whole file is there for its paths; what else the lint refuses is refused there, too.
#[test]
fn files_of_the_host_s_paths_start_nothing_and_read_no_environment() {
    let mut whole = 0;
    let mut broken = Vec::new();
    for (file, text) in with_extension("rs") {
        let head = text.lines().take_while(|line| !line.starts_with("use ")).collect::<String>();
        if !(head.contains("#![expect(") && head.contains("clippy::disallowed_methods")) {
            continue;
        }
        whole += 1;
        for word in ["Command::new(", "env::var"] {
            broken.extend(lines_with(&file, &text, word));
        }
    }
    assert!(whole > 10, "only {whole} files are read");
    report(broken);
}
