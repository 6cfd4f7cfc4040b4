//! How long a Dockerfile of a thousand instructions takes: parsed, checked and lowered.

#![allow(clippy::unwrap_used, reason = "a file that cannot be lowered measures nothing")]

use std::fmt::Write as _;
use std::sync::Arc;

use divan::{Bencher, black_box};
use kiln_dockerfile::{ImageFacts, LowerOptions, Lowered, Lowering, ResolvedImage, lower, parse};
use kiln_lint::{Settings, lint};
use kiln_oci::{Digest, ImageConfig};
use kiln_report::SourceFile;

fn main() {
    divan::main();
}

#[divan::bench]
fn a_thousand_instructions(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(|| mixed(1_000)).bench_values(whole);
}

#[divan::bench]
fn a_thousand_instructions_parsed(bencher: Bencher<'_, '_>) {
    let text = mixed(1_000);
    bencher.bench(|| parse(black_box(&text)));
}

#[divan::bench]
fn a_thousand_instructions_checked(bencher: Bencher<'_, '_>) {
    let (file, _) = parse(&mixed(1_000));
    bencher.bench(|| lint(black_box(&file), &Settings::default()));
}

/// Each stage begins with the one before.
#[divan::bench(args = [500, 1_000, 2_000], sample_count = 10)]
fn a_chain_of_stages(bencher: Bencher<'_, '_>, stages: usize) {
    bencher.with_inputs(|| chain(stages)).bench_values(whole);
}

fn whole(text: String) -> Lowered {
    let source = Arc::new(SourceFile::new("Dockerfile", text));
    let (file, diagnostics) = parse(source.text());
    assert!(diagnostics.is_empty(), "{diagnostics:?}");
    black_box(lint(&file, &Settings::default()));
    let options = LowerOptions::new(source);
    let mut facts = ImageFacts::new();
    loop {
        match lower(&file, &options, &facts).unwrap() {
            Lowering::Done(lowered) => return *lowered,
            Lowering::NeedsImages(wanted) => {
                for request in wanted {
                    facts.insert(request.reference, request.platform, base());
                }
            }
        }
    }
}

fn base() -> ResolvedImage {
    let digest = Digest::sha256(b"base");
    let identifier = format!("docker-image://docker.io/library/alpine:latest@{digest}");
    let mut config = ImageConfig::default();
    config.rootfs.diff_ids.push(Digest::sha256(b"layer"));
    ResolvedImage { digest, identifier, config, is_local: false }
}

/// Half of the instructions are ENV; the rest run, copy and label in turn.
fn mixed(instructions: usize) -> String {
    let mut text = String::from("FROM alpine\nARG version=1.2.3\n");
    for at in 2..instructions {
        match at % 10 {
            0 | 2 | 4 | 6 | 8 => writeln!(text, "ENV VARIABLE_{at}=\"/opt/$version/part-{at}/bin\""),
            1 | 5 => {
                writeln!(text, "RUN --mount=type=cache,target=/var/cache/{at} \\\n    make -C /src/part-{at} install")
            }
            3 => writeln!(text, "COPY --chown=1000:1000 part-{at}/*.txt $VARIABLE_2/part-{at}/"),
            7 => writeln!(text, "WORKDIR /src/part-{at}"),
            _ => writeln!(text, "LABEL org.example.part-{at}=\"$version-{at}\""),
        }
        .unwrap();
    }
    text
}

fn chain(stages: usize) -> String {
    let mut text = String::from("FROM alpine AS stage-0\n");
    for at in 1..stages {
        writeln!(text, "FROM stage-{} AS stage-{at}\nENV STAGE_{at}={at}", at - 1).unwrap();
    }
    text
}
