//! What can be built: the stages of a file with their descriptions.

use kiln_report::Span;

use crate::check::description;
use crate::instruction::Command;
use crate::parse::Dockerfile;

/// A stage that can be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name, in lower case.
    pub name: Option<String>,
    /// The comment above its `FROM` that begins with the name, without the name.
    pub description: Option<String>,
    /// What it begins with, as written.
    pub base: String,
    /// `--platform`, as written.
    pub platform: Option<String>,
    /// Whether it is built when no target is named.
    pub is_default: bool,
    /// Its `FROM`.
    pub span: Span,
}

/// Lists the stages of a file, in order.
pub fn targets(file: &Dockerfile) -> Vec<Target> {
    let mut targets: Vec<Target> = Vec::new();
    for instruction in file.instructions() {
        let Some(Command::From(from)) = &instruction.command else { continue };
        let name = from.stage_name();
        let description = name.as_deref().and_then(|name| description(&instruction.comments, name)).map(str::to_owned);
        targets.push(Target {
            name,
            description,
            base: from.image.text.clone(),
            platform: from.platform.as_ref().map(|word| word.text.clone()),
            is_default: false,
            span: instruction.span,
        });
    }
    if let Some(last) = targets.last_mut() {
        last.is_default = true;
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_listed_with_their_descriptions() {
        let text = "ARG A=b\n# build compiles it\n# with care\nFROM --platform=$BUILDPLATFORM $A AS Build\n# note\nFROM build\n";
        let found = targets(&crate::parse(text).0);
        let [build, last] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((build.name.as_deref(), build.description.as_deref()), (Some("build"), Some("compiles it")));
        assert_eq!((build.base.as_str(), build.platform.as_deref()), ("$A", Some("$BUILDPLATFORM")));
        assert_eq!((&last.name, &last.description, build.is_default, last.is_default), (&None, &None, false, true));
    }
}
