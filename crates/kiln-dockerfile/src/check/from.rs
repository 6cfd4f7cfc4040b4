//! Checks of `FROM`.

use std::collections::{BTreeMap, BTreeSet};

use kiln_oci::{Platform, Reference};
use kiln_report::Diagnostic;

use super::fixes::{self, StageUses, mend};
use super::{Findings, rules};
use crate::expand::{Expansion, Lexer, Variables};
use crate::instruction::{Command, From};
use crate::lower::{Globals, Seed};
use crate::parse::{Dockerfile, Instruction, Word};
use crate::suggest;

/// Names that mean something else in `FROM` and `--from`.
const RESERVED: [&str; 2] = ["context", "scratch"];

pub(super) fn check(file: &Dockerfile, findings: &mut Findings<'_>) {
    let platform = Platform::host();
    let none = BTreeMap::new();
    let seed = Seed { build_args: &none, platform: &platform, build_platform: &platform, target: "default" };
    let globals = Globals::read(file, &seed, &mut Vec::new());
    let lexer = Lexer::new(file.escape);
    let mut names = BTreeSet::new();
    let mut uses = StageUses::of(file);
    for instruction in file.instructions() {
        let Some(Command::From(from)) = &instruction.command else { continue };
        let found = casing(instruction, from).into_iter().chain(name(from, &mut names, &mut uses));
        let found: Vec<Diagnostic> = found
            .chain(image(from, &globals, lexer))
            .chain(platform_flag(instruction, from, &globals, lexer))
            .collect();
        found.into_iter().for_each(|finding| findings.push(instruction, finding));
    }
}

fn casing(instruction: &Instruction, from: &From) -> Option<Diagnostic> {
    let keyword = instruction.keyword.text.as_str();
    let word = from.as_keyword.as_ref()?;
    let wanted = match keyword {
        _ if keyword == keyword.to_lowercase() => word.text.to_lowercase(),
        _ if keyword == keyword.to_uppercase() => word.text.to_uppercase(),
        // The keyword itself is told about; its case is nothing to go by.
        _ => return None,
    };
    (word.text != wanted)
        .then(|| mend(rules::from_as_casing(keyword, &word.text, word.span), fixes::respell(word, &wanted)))
}

fn name(from: &From, names: &mut BTreeSet<String>, uses: &mut StageUses) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let (Some(name), Some(lower)) = (&from.name, from.stage_name()) else { return found };
    if name.text != lower {
        found.push(mend(rules::stage_name_casing(&name.text, name.span), uses.in_lower_case(name)));
    }
    if RESERVED.contains(&lower.as_str()) {
        found.push(rules::reserved_stage(&lower, name.span));
    }
    if !names.insert(lower.clone()) {
        found.push(rules::duplicate_stage(&lower, name.span));
    }
    found
}

fn image(from: &From, globals: &Globals, lexer: Lexer) -> Vec<Diagnostic> {
    let Ok(expansion) = lexer.expand(&from.image.text, &globals.env) else { return Vec::new() };
    let mut found = undeclared(&from.image, &expansion, globals);
    let unset = expansion.uses.iter().find(|used| !used.is_set).or(expansion.uses.first());
    if let Some(used) = unset.filter(|_| expansion.text.parse::<Reference>().is_err()) {
        let names = globals.declared.iter().map(String::as_str);
        let nearest = suggest::nearest(&used.name, names).filter(|_| !globals.declared.contains(&used.name));
        found.push(rules::invalid_default_arg(&from.image.text, &used.name, nearest, from.image.span));
    }
    found
}

fn undeclared(word: &Word, expansion: &Expansion, globals: &Globals) -> Vec<Diagnostic> {
    let unknown = expansion.uses.iter().filter(|used| !used.is_set && !globals.declared.contains(&used.name));
    let finding = |used: &crate::expand::VariableUse| {
        let nearest = suggest::nearest(&used.name, globals.declared.iter().map(String::as_str));
        let fix = nearest.and_then(|nearest| fixes::rename_variable(word, used.start, &used.name, nearest));
        mend(rules::undefined_arg_in_from(&used.name, nearest, word.part(used.start, used.end)), fix)
    };
    unknown.map(finding).collect()
}

fn platform_flag(instruction: &Instruction, from: &From, globals: &Globals, lexer: Lexer) -> Vec<Diagnostic> {
    let Some(word) = &from.platform else { return Vec::new() };
    let Ok(expansion) = lexer.expand(&word.text, &globals.env) else { return Vec::new() };
    let mut found = undeclared(word, &expansion, globals);
    if let [used] = expansion.uses.as_slice() {
        let is_target = used.name == "TARGETPLATFORM" && used.is_set;
        if is_target && globals.env.value("TARGETPLATFORM") == Some(&expansion.text) {
            let fix = fixes::without_flag(instruction, word);
            found.push(mend(rules::redundant_platform(&word.text, word.span), fix));
        }
    }
    let Ok(platform) = expansion.text.parse::<Platform>() else { return found };
    let name = from.stage_name().unwrap_or_default();
    let is_named_after = name.contains(&platform.os) || name.contains(&platform.architecture);
    if expansion.uses.is_empty() && !is_named_after {
        found.push(rules::const_platform(&expansion.text, word.span));
    }
    found
}
