//! What the language promises, a test a promise. The corpus beside it shows every form and every error.

#![allow(clippy::unwrap_used, reason = "a file that cannot be lowered fails its test")]

mod arguments;
mod copy;
mod errors;
mod from;
mod run;
mod settings;
mod text;

use std::sync::Arc;

use kiln_dockerfile::{ImageFacts, LowerOptions, Lowered, Lowering, NamedContext, ResolvedImage, lower, parse};
use kiln_graph::Vertex;
use kiln_graph::llb::{ExecOp, FileActionCopy, FileActionKind, FileActionMkDir, FileActionMkFile, OpKind, SourceOp};
use kiln_oci::{Digest, ImageConfig};
use kiln_report::{Diagnostic, SourceFile};
use serde_json::{Value, json};

/// A Dockerfile and how it is built.
struct File {
    options: LowerOptions,
    base: Value,
}

impl File {
    fn new(text: &str) -> Self {
        let mut options = LowerOptions::new(Arc::new(SourceFile::new("Dockerfile", text)));
        options.platform = "linux/amd64".parse().unwrap();
        options.build_platform = options.platform.clone();
        Self { options, base: json!({"Env": ["PATH=/bin"]}) }
    }

    fn arg(mut self, name: &str, value: &str) -> Self {
        self.options.build_args.insert(name.into(), value.into());
        self
    }

    fn platform(mut self, platform: &str) -> Self {
        self.options.platform = platform.parse().unwrap();
        self
    }

    fn target(mut self, stage: &str) -> Self {
        self.options.target = Some(stage.into());
        self
    }

    fn allow(mut self, entitlement: &str) -> Self {
        self.options.entitlements.insert(entitlement.into());
        self
    }

    fn context(mut self, name: &str, directory: &str) -> Self {
        self.options.contexts.insert(name.into(), NamedContext::Local { name: directory.into() });
        self
    }

    fn context_of_stage(mut self, name: &str, stage: &str) -> Self {
        self.options.contexts.insert(name.into(), NamedContext::Stage { name: stage.into() });
        self
    }

    /// The `config` of every image it begins with.
    fn base(mut self, config: Value) -> Self {
        self.base = config;
        self
    }

    fn try_build(self) -> Result<Built, Vec<Diagnostic>> {
        let (file, found) = parse(self.options.source.text());
        if !found.is_empty() {
            return Err(found);
        }
        let (mut facts, mut asked) = (ImageFacts::new(), Vec::new());
        loop {
            match lower(&file, &self.options, &facts)? {
                Lowering::Done(lowered) => return Ok(Built { lowered: *lowered, asked }),
                Lowering::NeedsImages(wanted) => {
                    for request in wanted {
                        asked.push(request.reference.clone());
                        let image = image(&request.reference, &self.base);
                        facts.insert(request.reference, request.platform, image);
                    }
                }
            }
        }
    }

    fn build(self) -> Built {
        self.try_build().unwrap()
    }

    /// What is wrong with it.
    fn errors(self) -> Vec<String> {
        self.try_build().err().unwrap().into_iter().map(|error| error.message).collect()
    }
}

fn image(reference: &str, config: &Value) -> ResolvedImage {
    let digest = Digest::sha256(reference);
    let config: ImageConfig = serde_json::from_value(json!({
        "os": "linux", "architecture": "amd64", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [Digest::sha256(b"layer").to_string()]},
    }))
    .unwrap();
    ResolvedImage { identifier: format!("docker-image://{reference}@{digest}"), digest, config, is_local: false }
}

/// What became of it.
struct Built {
    lowered: Lowered,
    /// The images it wanted to know.
    asked: Vec<String>,
}

impl Built {
    /// What the result needs, inputs first.
    fn vertices(&self) -> Vec<&Vertex> {
        let definition = &self.lowered.definition;
        let root = self.lowered.root.iter();
        root.flat_map(|root| definition.reachable(root)).map(|id| definition.vertex(&id).unwrap()).collect()
    }

    fn ops<T>(&self, pick: impl Fn(&OpKind) -> Option<&T>) -> Vec<T>
    where
        T: Clone,
    {
        self.vertices().iter().filter_map(|vertex| pick(vertex.op.op.as_ref().unwrap()).cloned()).collect()
    }

    /// Its processes, each after those it needs.
    fn runs(&self) -> Vec<ExecOp> {
        self.ops(|op| if let OpKind::Exec(op) = op { Some(op) } else { None })
    }

    fn run(&self) -> ExecOp {
        self.runs().pop().unwrap()
    }

    fn env_of_last_run(&self) -> Vec<String> {
        self.run().meta.unwrap().env
    }

    fn sources(&self) -> Vec<SourceOp> {
        self.ops(|op| if let OpKind::Source(op) = op { Some(op) } else { None })
    }

    fn source(&self, prefix: &str) -> SourceOp {
        self.sources().into_iter().find(|op| op.identifier.starts_with(prefix)).unwrap()
    }

    fn actions(&self) -> Vec<FileActionKind> {
        let files = self.ops(|op| if let OpKind::File(op) = op { Some(op) } else { None });
        files.into_iter().flat_map(|file| file.actions).filter_map(|action| action.action).collect()
    }

    fn copies(&self) -> Vec<FileActionCopy> {
        self.actions()
            .into_iter()
            .filter_map(|a| if let FileActionKind::Copy(c) = a { Some(c) } else { None })
            .collect()
    }

    fn directories(&self) -> Vec<FileActionMkDir> {
        let pick = |a| if let FileActionKind::MkDir(d) = a { Some(d) } else { None };
        self.actions().into_iter().filter_map(pick).collect()
    }

    fn documents(&self) -> Vec<FileActionMkFile> {
        let pick = |a| if let FileActionKind::MkFile(f) = a { Some(f) } else { None };
        self.actions().into_iter().filter_map(pick).collect()
    }

    fn history(&self) -> Vec<String> {
        self.lowered.config.history.iter().filter_map(|step| step.created_by.clone()).collect()
    }

    fn image_env(&self) -> &[String] {
        &self.lowered.config.config.env
    }
}
