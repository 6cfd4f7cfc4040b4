//! Installing packages of a distribution: Alpine's, Red Hat's and SUSE's. What package managers have in common.

use kiln_report::{Edit, Fix, Level, Safety, Span};

use crate::finding::Findings;
use crate::rule::{Rule, Scope};
use crate::script::Script;
use crate::shell::{Call, Word};
use crate::view::{Step, View};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "ApkUnpinned",
        aliases: &["DL3018"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "apk installs packages of whatever version there is",
        why: "The same Dockerfile gives another image when the distribution has a newer package, and nobody has decided that.",
        bad: "FROM alpine:3.20\nRUN apk add --no-cache curl\n",
        good: "FROM alpine:3.20\nRUN apk add --no-cache curl=~8.9\n",
        check: |view, findings| {
            for install in APK.installs(view) {
                // `name=1`, `name~1`, `name>1`, and files.
                let is_pinned =
                    |word: &Word| word.text.contains(['=', '~', '<', '>', '/']) || word.text.starts_with('!');
                install.report_unpinned(is_pinned, "write `name=version`, as in `curl=~8.9`", findings);
            }
        },
    },
    Rule {
        name: "ApkCacheLeft",
        aliases: &["DL3019"],
        level: Level::Info,
        scope: Scope::Check,
        summary: "the index that apk fetched stays in the image",
        why: "`--no-cache` fetches the index, uses it and forgets it, so that neither `apk update` nor cleaning up is needed.",
        bad: "FROM alpine:3.20\nRUN apk add curl=~8.9\n",
        good: "FROM alpine:3.20\nRUN apk add --no-cache curl=~8.9\n",
        check: apk_cache_left,
    },
    Rule {
        name: "YumUnpinned",
        aliases: &["DL3033"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "yum installs packages of whatever version there is",
        why: "The same Dockerfile gives another image when the distribution has a newer package, and nobody has decided that.",
        bad: "FROM centos:7\nRUN yum install -y httpd && yum clean all\n",
        good: "FROM centos:7\nRUN yum install -y httpd-2.4.6 && yum clean all\n",
        check: |view, findings| YUM.unpinned(view, findings),
    },
    Rule {
        name: "YumAsks",
        aliases: &["DL3030"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "yum install asks before it installs",
        why: "Nobody is there to answer while an image is built, so nothing is installed and the step fails.",
        bad: "FROM centos:7\nRUN yum install httpd-2.4.6 && yum clean all\n",
        good: "FROM centos:7\nRUN yum install -y httpd-2.4.6 && yum clean all\n",
        check: |view, findings| YUM.asks(view, findings),
    },
    Rule {
        name: "YumCacheLeft",
        aliases: &["DL3032"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "what yum fetched stays in the image",
        why: "Indexes and packages are often more than a hundred megabytes, and removing them in a later step leaves them in \
              the layer they are in.",
        bad: "FROM centos:7\nRUN yum install -y httpd-2.4.6\n",
        good: "FROM centos:7\nRUN yum install -y httpd-2.4.6 && yum clean all\n",
        check: |view, findings| YUM.cache_left(view, findings),
    },
    Rule {
        name: "DnfUnpinned",
        aliases: &["DL3041"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "dnf installs packages of whatever version there is",
        why: "The same Dockerfile gives another image when the distribution has a newer package, and nobody has decided that.",
        bad: "FROM fedora:40\nRUN dnf install -y httpd && dnf clean all\n",
        good: "FROM fedora:40\nRUN dnf install -y httpd-2.4.59 && dnf clean all\n",
        check: |view, findings| DNF.unpinned(view, findings),
    },
    Rule {
        name: "DnfAsks",
        aliases: &["DL3038"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "dnf install asks before it installs",
        why: "Nobody is there to answer while an image is built, so nothing is installed and the step fails.",
        bad: "FROM fedora:40\nRUN dnf install httpd-2.4.59 && dnf clean all\n",
        good: "FROM fedora:40\nRUN dnf install -y httpd-2.4.59 && dnf clean all\n",
        check: |view, findings| DNF.asks(view, findings),
    },
    Rule {
        name: "DnfCacheLeft",
        aliases: &["DL3040"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "what dnf fetched stays in the image",
        why: "Indexes and packages are often more than a hundred megabytes, and removing them in a later step leaves them in \
              the layer they are in.",
        bad: "FROM fedora:40\nRUN dnf install -y httpd-2.4.59\n",
        good: "FROM fedora:40\nRUN dnf install -y httpd-2.4.59 && dnf clean all\n",
        check: |view, findings| DNF.cache_left(view, findings),
    },
    Rule {
        name: "ZypperUnpinned",
        aliases: &["DL3037"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "zypper installs packages of whatever version there is",
        why: "The same Dockerfile gives another image when the distribution has a newer package, and nobody has decided that.",
        bad: "FROM opensuse/leap:15.6\nRUN zypper -n install httpd && zypper clean\n",
        good: "FROM opensuse/leap:15.6\nRUN zypper -n install httpd=2.4.58 && zypper clean\n",
        check: |view, findings| ZYPPER.unpinned(view, findings),
    },
    Rule {
        name: "ZypperAsks",
        aliases: &["DL3034"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "zypper asks before it changes anything",
        why: "Nobody is there to answer while an image is built, so nothing is installed and the step fails.",
        bad: "FROM opensuse/leap:15.6\nRUN zypper install httpd=2.4.58 && zypper clean\n",
        good: "FROM opensuse/leap:15.6\nRUN zypper install -y httpd=2.4.58 && zypper clean\n",
        check: |view, findings| ZYPPER.asks(view, findings),
    },
    Rule {
        name: "ZypperCacheLeft",
        aliases: &["DL3036"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "what zypper fetched stays in the image",
        why: "Indexes and packages are often more than a hundred megabytes, and removing them in a later step leaves them in \
              the layer they are in.",
        bad: "FROM opensuse/leap:15.6\nRUN zypper -n install httpd=2.4.58\n",
        good: "FROM opensuse/leap:15.6\nRUN zypper -n install httpd=2.4.58 && zypper clean\n",
        check: |view, findings| ZYPPER.cache_left(view, findings),
    },
];

/// A command that installs packages.
pub(super) struct Install<'v> {
    pub(super) step: &'v Step<'v>,
    pub(super) script: &'v Script<'v>,
    pub(super) call: Call<'v>,
    /// `install`, `add`.
    subcommand: &'v Word,
    pub(super) packages: Vec<&'v Word>,
}

/// All commands that install packages: `subcommands` gives the words by which a program does so.
pub(super) fn installs<'v>(
    view: &'v View<'_>,
    subcommands: impl Fn(&Call<'_>) -> Option<&'static [&'static str]>,
    valued: &'static [&'static str],
) -> impl Iterator<Item = Install<'v>> {
    view.calls().filter_map(move |(step, script, call)| {
        let wanted = subcommands(&call)?;
        let mut packages = call.operands(valued);
        let at = packages.iter().position(|word| wanted.contains(&word.text.as_str()))?;
        let packages = packages.split_off(at);
        let (subcommand, packages) = packages.split_first()?;
        Some(Install { step, script, call, subcommand, packages: packages.to_vec() })
    })
}

impl Install<'_> {
    /// From the program to its subcommand.
    pub(super) fn head_span(&self) -> Span {
        self.script.span(self.call.words[0].start, self.subcommand.end)
    }

    /// Reports the packages without a version. What comes from a variable may have one.
    pub(super) fn report_unpinned(&self, is_pinned: impl Fn(&Word) -> bool, hint: &str, findings: &mut Findings<'_>) {
        let unpinned: Vec<&Word> =
            self.packages.iter().filter(|word| word.is_literal() && !is_pinned(word)).copied().collect();
        let (Some(first), Some(last)) = (unpinned.first(), unpinned.last()) else { return };
        let message = match unpinned.as_slice() {
            [one] => format!("`{}` is installed in whatever version there is", one.text),
            [one, two] => format!("`{}` and `{}` are installed in whatever version there is", one.text, two.text),
            [one, two, rest @ ..] => {
                let (one, two, more) = (&one.text, &two.text, rest.len());
                format!("`{one}`, `{two}` and {more} more are installed in whatever version there is")
            }
            [] => return,
        };
        findings.report(self.step.instruction, self.script.span(first.start, last.end), message, hint);
    }

    /// A fix that puts an option behind the subcommand.
    pub(super) fn insert_option(&self, description: &str, option: &str, safety: Safety) -> Option<Fix> {
        let at = self.script.span(self.subcommand.start, self.subcommand.end).end;
        // An argument of the exec form is more than its text.
        (self.script.shell.is_posix()).then(|| {
            let edit = Edit { span: Span::new(at, at), text: format!(" {option}") };
            fix(description, edit, safety)
        })
    }
}

/// A fix of one edit.
pub(super) fn fix(description: impl Into<String>, edit: Edit, safety: Safety) -> Fix {
    Fix { description: description.into(), edits: vec![edit], safety }
}

/// How a package manager is told things.
struct Manager {
    names: &'static [&'static str],
    installs: &'static [&'static str],
    /// Options that take the next argument.
    valued: &'static [&'static str],
    yes: (char, &'static [&'static str]),
    /// What cleans up: `clean all`.
    cleans: &'static [&'static str],
    /// Where it keeps what it fetches.
    caches: &'static [&'static str],
}

const APK: Manager = Manager {
    names: &["apk"],
    installs: &["add"],
    valued: &["-t", "--virtual", "-X", "--repository", "-p", "--root", "--keys-dir", "--repositories-file", "--arch"],
    yes: ('\0', &[]),
    cleans: &[],
    caches: &["/var/cache/apk", "/etc/apk/cache"],
};

const RPM_VALUED: &[&str] = &[
    "-c",
    "--config",
    "-x",
    "--exclude",
    "--enablerepo",
    "--disablerepo",
    "--repo",
    "--repoid",
    "--installroot",
    "--releasever",
    "--setopt",
    "-d",
    "-e",
    "--forcearch",
];

const YUM: Manager = Manager {
    names: &["yum"],
    installs: &["install"],
    valued: RPM_VALUED,
    yes: ('y', &["assumeyes"]),
    cleans: &["clean"],
    caches: &["/var/cache/yum", "/var/cache/dnf"],
};

const DNF: Manager = Manager {
    names: &["dnf", "microdnf", "dnf5", "tdnf"],
    installs: &["install"],
    valued: RPM_VALUED,
    yes: ('y', &["assumeyes"]),
    cleans: &["clean"],
    caches: &["/var/cache/dnf", "/var/cache/libdnf5", "/var/cache/yum", "/var/cache/tdnf"],
};

const ZYPPER: Manager = Manager {
    names: &["zypper"],
    installs: &["install", "in"],
    valued: &["-r", "--repo", "-t", "--type", "-R", "--root", "-C", "--cache-dir", "--from", "-c", "--config"],
    yes: ('y', &["no-confirm", "non-interactive"]),
    cleans: &["clean", "cc"],
    caches: &["/var/cache/zypp"],
};

impl Manager {
    fn is_it(&self, call: &Call<'_>) -> bool {
        self.names.contains(&call.name)
    }

    fn installs<'v>(&'static self, view: &'v View<'_>) -> impl Iterator<Item = Install<'v>> {
        installs(view, |call| self.is_it(call).then_some(self.installs), self.valued)
    }

    fn unpinned(&'static self, view: &View<'_>, findings: &mut Findings<'_>) {
        let (is_rpm, hint) = match self.names[0] {
            "zypper" => (false, "write `name=version`, as in `httpd=2.4.58`"),
            _ => (true, "write `name-version`, as in `httpd-2.4.59`"),
        };
        for install in self.installs(view) {
            let is_module = install.call.operands(self.valued).first().is_some_and(|word| word.text == "module");
            let is_pinned = |word: &Word| {
                let text = &word.text;
                let has_version =
                    text.match_indices('-').any(|(at, _)| text[at + 1..].starts_with(|c: char| c.is_ascii_digit()));
                text.contains(['=', '<', '>', '/', '('])
                    || text.starts_with('@')
                    || text.ends_with(".rpm")
                    || is_rpm && has_version
                    || is_module && text.contains(':')
            };
            install.report_unpinned(is_pinned, hint, findings);
        }
    }

    fn asks(&'static self, view: &View<'_>, findings: &mut Findings<'_>) {
        let says_yes = view.since(|instruction| instruction.line.text().contains("assumeyes"));
        for install in self.installs(view) {
            let (letter, names) = self.yes;
            // microdnf and tdnf of old never ask.
            let never_asks = ["microdnf", "tdnf"].contains(&install.call.name);
            let is_quiet = self.names[0] == "zypper" && install.call.has('n', &[]);
            let is_set = says_yes.holds(install.step.stage, install.step.index)
                || install.step.scripts.iter().any(|script| script.text.contains("assumeyes"));
            if never_asks || is_quiet || install.call.has(letter, names) || is_set {
                continue;
            }
            let message = format!("`{} install` asks before it installs, and nobody answers", install.call.name);
            let fix = install.insert_option("add `-y`", "-y", Safety::Safe);
            findings.report(install.step.instruction, install.head_span(), message, "add `-y`");
            findings.mend(fix);
        }
    }

    fn cache_left(&'static self, view: &View<'_>, findings: &mut Findings<'_>) {
        for install in self.installs(view).filter(|install| view.stages[install.step.stage].ships) {
            let name = install.call.name;
            if self.is_clean(install.step) {
                continue;
            }
            let clean = if self.names[0] == "zypper" { "zypper clean".to_owned() } else { format!("{name} clean all") };
            let message = format!("what `{name}` fetches stays in the image's layer");
            let hint = format!("end the same RUN with `{clean}`");
            findings.report(install.step.instruction, install.head_span(), message, hint);
        }
    }

    /// Whether a step leaves nothing of what was fetched: it cleans up, or a mount has it.
    fn is_clean(&self, step: &Step<'_>) -> bool {
        // One of them may be a name of another.
        let is_any = |call: &Call<'_>| [&YUM, &DNF, &ZYPPER].iter().any(|manager| manager.is_it(call));
        let cleans = |call: Call<'_>| {
            is_any(&call) && call.operands(self.valued).iter().any(|word| self.cleans.contains(&word.text.as_str()))
                || call.name == "rm" && call.arguments().iter().any(|word| self.removes(&word.text))
        };
        self.caches.iter().any(|cache| step.covers(cache))
            || step.scripts.iter().any(|script| script.code.calls().any(cleans))
    }

    fn removes(&self, path: &str) -> bool {
        let path = path.trim_end_matches(['*', '/']);
        let is_all = ["/var/cache", "/var"].contains(&path);
        is_all || self.caches.iter().any(|cache| path.starts_with(cache) || cache.starts_with(path) && path.len() > 12)
    }
}

fn apk_cache_left(view: &View<'_>, findings: &mut Findings<'_>) {
    for install in APK.installs(view).filter(|install| view.stages[install.step.stage].ships) {
        if install.call.has('\0', &["no-cache", "no-network"])
            || install.packages.is_empty()
            || APK.is_clean(install.step)
        {
            continue;
        }
        let fix = install.insert_option("add `--no-cache`", "--no-cache", Safety::Safe);
        let message = "`apk add` leaves the index it fetched in the image's layer".to_owned();
        findings.report(install.step.instruction, install.head_span(), message, "add `--no-cache`");
        findings.mend(fix);
    }
}
