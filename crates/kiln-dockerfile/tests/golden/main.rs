//! Walks the corpus: each folder is a Dockerfile, and what becomes of it.
//!
//! A case may have an `options.json`: `target`, `args`, `labels`, `platform`, `contexts`, `context_time`, `entitlements`,
//! `network`, `no_cache`, `shm_size`, and `images` with configs. Images not listed there are made up. Run with
//! `INSTA_UPDATE=always` to write the snapshots, and read them.
#![allow(clippy::disallowed_methods, reason = "tests name files of the machine")]
#![allow(clippy::unwrap_used, reason = "a case that cannot be read or shown fails its test")]

mod render;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_dockerfile::{
    Breadth, CheckConfig, ImageFacts, ImageRequest, LowerOptions, Lowered, Lowering, NamedContext, NoCache,
    ResolvedImage, all_errors, check, lower, parse,
};
use kiln_graph::llb::NetMode;
use kiln_oci::{Digest, ImageConfig, Platform, Reference};
use kiln_report::{Diagnostic, SourceFile};
use serde_json::{Value, json};

#[test]
fn every_case_of_the_corpus_gives_what_its_snapshots_say() {
    let cases = cases();
    assert!(cases.len() >= 130, "the corpus has {} cases", cases.len());
    for case in cases {
        let name = case.file_name().and_then(|name| name.to_str()).unwrap().to_owned();
        let text = String::from_utf8(std::fs::read(case.join("Dockerfile")).unwrap()).unwrap();
        let source = Arc::new(SourceFile::new("Dockerfile", text));
        let settings = std::fs::read_to_string(case.join("options.json")).unwrap_or_else(|_| "{}".into());
        let settings: Value = serde_json::from_str(&settings).unwrap();
        let outcome = Outcome::of(&source, &settings);
        let mut insta = insta::Settings::clone_current();
        insta.set_snapshot_path(&case);
        insta.set_prepend_module_to_snapshot(false);
        insta.set_omit_expression(true);
        insta.set_description(name);
        insta.bind(|| {
            insta::assert_snapshot!("ast", render::tree(&outcome.file, &source));
            insta::assert_snapshot!("diagnostics", render::diagnostics(&outcome.diagnostics, &source));
            if let Some(lowered) = &outcome.lowered {
                insta::assert_snapshot!("graph", render::lowered(lowered, &outcome.asked, &source));
            }
        });
        let has_graph = case.join("graph.snap").exists();
        assert_eq!(has_graph, outcome.lowered.is_some(), "{} has a graph: {has_graph}", case.display());
    }
}

fn cases() -> Vec<PathBuf> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

struct Outcome {
    file: kiln_dockerfile::Dockerfile,
    diagnostics: Vec<Diagnostic>,
    lowered: Option<Box<Lowered>>,
    asked: Vec<ImageRequest>,
}

impl Outcome {
    fn of(source: &Arc<SourceFile>, settings: &Value) -> Self {
        let (file, mut diagnostics) = parse(source.text());
        let is_broken = !diagnostics.is_empty();
        let options = options(source, settings);
        if is_broken {
            diagnostics = all_errors(&file, &options, diagnostics, Breadth::Needed);
        }
        let config = CheckConfig::of(&file).unwrap_or_default();
        diagnostics.extend(check(&file, &config));
        let mut facts = ImageFacts::new();
        let (mut lowered, mut asked) = (None, Vec::new());
        for round in 0..if is_broken { 0 } else { 10 } {
            assert!(round < 9, "lowering keeps asking");
            match lower(&file, &options, &facts) {
                Ok(Lowering::Done(done)) => {
                    diagnostics.extend(done.warnings.iter().cloned());
                    lowered = Some(done);
                }
                Ok(Lowering::NeedsImages(wanted)) => {
                    for request in &wanted {
                        assert!(facts.find(&request.reference, &request.platform).is_none(), "asked twice");
                        let image = image(request, settings);
                        facts.insert(request.reference.clone(), request.platform.clone(), image);
                    }
                    asked.extend(wanted);
                    continue;
                }
                Err(errors) => diagnostics.extend(errors),
            }
            break;
        }
        diagnostics.sort_by_key(|diagnostic| (diagnostic.level, diagnostic.span));
        diagnostics.dedup();
        Self { file, diagnostics, lowered, asked }
    }
}

fn options(source: &Arc<SourceFile>, settings: &Value) -> LowerOptions {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let map = |name: &str| -> Vec<(String, String)> {
        let entries = settings[name].as_object().cloned().unwrap_or_default();
        entries.iter().map(|(key, value)| (key.clone(), text(value))).collect()
    };
    let amd64: Platform = "linux/amd64".parse().unwrap();
    let platform = settings["platform"].as_str().map(|platform| platform.parse().unwrap());
    LowerOptions {
        target: settings["target"].as_str().map(str::to_owned),
        build_args: map("args").into_iter().collect(),
        labels: map("labels").into_iter().collect(),
        platform_is_chosen: platform.is_some(),
        platform: platform.unwrap_or_else(|| amd64.clone()),
        build_platform: amd64,
        contexts: map("contexts").into_iter().map(|(name, value)| (name, context(&value))).collect(),
        no_cache: match &settings["no_cache"] {
            Value::Bool(true) => NoCache::Always,
            Value::Array(stages) => NoCache::Stages(stages.iter().map(text).collect()),
            _ => NoCache::Never,
        },
        entitlements: settings["entitlements"].as_array().into_iter().flatten().map(text).collect(),
        shm_size: settings["shm_size"].as_u64(),
        context_time: settings["context_time"].as_i64(),
        network: if settings["network"] == "none" { NetMode::None } else { NetMode::Unset },
        ..LowerOptions::new(Arc::clone(source))
    }
}

fn context(text: &str) -> NamedContext {
    match text.split_once("://") {
        Some(("docker-image", reference)) => NamedContext::Image { reference: reference.to_owned() },
        Some(("oci-layout", reference)) => NamedContext::OciLayout { reference: reference.to_owned() },
        _ => NamedContext::Local { name: text.to_owned() },
    }
}

/// An image as asked for: from the case's settings, or made up.
fn image(request: &ImageRequest, settings: &Value) -> ResolvedImage {
    let mut config = json!({
        "os": request.platform.os, "architecture": request.platform.architecture,
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [Digest::sha256(b"layer").to_string()]},
        "history": [{"created_by": "base"}],
    });
    if let Some(given) = settings["images"][&request.reference].as_object() {
        given.iter().for_each(|(key, value)| config[key] = value.clone());
    }
    let config: ImageConfig = serde_json::from_value(config).unwrap();
    // A short digest that can be read by eye: the real length, but of one letter.
    let digest: Digest = format!("sha256:{}", "d".repeat(64)).parse().unwrap();
    let identifier = match request.reference.strip_prefix("oci-layout://") {
        Some(layout) => format!("oci-layout://{layout}@{digest}"),
        None => {
            let reference: Reference = request.reference.parse().unwrap();
            format!("docker-image://{}", reference.with_digest(digest.clone()))
        }
    };
    ResolvedImage { digest, identifier, config, is_local: false }
}
