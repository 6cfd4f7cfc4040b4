//! Claims about what a build takes from directories of the machine.
#![allow(clippy::unwrap_used, reason = "a failing set-up is a failing test")]

use std::sync::Arc;

use kiln_dockerfile::{ContextRead, LowerOptions, NamedContext, Reader, context_reads, parse};
use kiln_report::SourceFile;

fn reads(text: &str, change: impl FnOnce(&mut LowerOptions)) -> Vec<ContextRead> {
    let source = Arc::new(SourceFile::new("Dockerfile", text));
    let (file, errors) = parse(source.text());
    assert!(errors.is_empty(), "{errors:?}");
    let mut options = LowerOptions::new(source);
    change(&mut options);
    context_reads(&file, &options)
}

/// Each as `keyword context:path`, with what is written at its span.
fn shown(text: &str) -> Vec<(String, &str)> {
    let reads = reads(text, |options| {
        options.contexts.insert("docs".into(), NamedContext::Local { name: "docs".into() });
        options.build_args.insert("GIVEN".into(), "given".into());
    });
    let line = |read: &ContextRead| format!("{} {}:{}", read.by.keyword(), read.context, read.path);
    reads.iter().map(|read| (line(read), &text[read.span.range()])).collect()
}

#[test]
fn every_source_of_every_stage_is_listed_with_its_variables_and_its_place() {
    let text = "ARG V=1\nFROM busybox AS unused\nCOPY a b/*.txt /x/\n\
                FROM alpine AS base\nARG V\nARG GIVEN\nENV D=dir\nADD $D/$V ${GIVEN}.tar /y/\n\
                FROM base\nCOPY --from=base /z /z\nCOPY --from=unused /x /x\nCOPY \\\n  --chown=1 \"$D/q\" /q\n";
    let found = shown(text);
    let wanted = [
        ("COPY context:a", "a"),
        ("COPY context:b/*.txt", "b/*.txt"),
        ("ADD context:dir/1", "$D/$V"),
        ("ADD context:given.tar", "${GIVEN}.tar"),
        ("COPY context:dir/q", "\"$D/q\""),
    ];
    assert_eq!(found, wanted.map(|(line, written)| (line.to_owned(), written)));
}

#[test]
fn only_what_comes_from_a_directory_is_listed() {
    let text = "FROM scratch\nADD https://example.com/f /f\nCOPY <<EOF /g\ntext\nEOF\nCOPY --from=busybox /bin /bin\n\
                COPY --from=docs guide /guide\n";
    assert_eq!(shown(text), [("COPY docs:guide".to_owned(), "guide")]);
}

#[test]
fn bind_mounts_are_sources_too_and_caches_are_not() {
    let text = "FROM busybox\nRUN --mount=type=bind,source=go.mod,target=/m --mount=type=cache,target=/c \
                --mount=from=docs,source=in,target=/d true\n";
    let found: Vec<String> = shown(text).into_iter().map(|(line, _)| line).collect();
    assert_eq!(found, ["RUN --mount context:go.mod", "RUN --mount docs:in"]);
}

#[test]
fn what_only_the_base_image_can_set_is_not_certain() {
    let found = reads("FROM busybox\nENV KNOWN=k\nCOPY $KNOWN /\nCOPY $UNKNOWN/x /\n", |_| {});
    let certain: Vec<(&str, bool)> = found.iter().map(|read| (read.path.as_str(), read.is_certain)).collect();
    assert_eq!(certain, [("k", true), ("/x", false)]);
}

#[test]
fn what_parents_look_for_is_part_of_a_read() {
    let found = reads("FROM scratch\nCOPY --parents a/./b/c.txt /\n", |_| {});
    assert_eq!((found[0].by, found[0].path.as_str()), (Reader::Copy, "a/./b/c.txt"));
    let copy = &found[0].copy;
    assert_eq!((copy.src.as_str(), copy.include_patterns.as_slice()), ("/a", &["b/c.txt".to_owned()][..]));
    assert_eq!(copy.required_paths, ["/a/b/c.txt"]);
}

#[test]
fn triggers_of_a_stage_take_from_the_context_where_the_stage_is_a_base() {
    let text = "FROM scratch AS base\nONBUILD COPY late /\nFROM base\n";
    assert_eq!(shown(text), [("COPY context:late".to_owned(), "FROM base")]);
}

#[test]
fn what_was_meant_for_a_comment_is_no_source_unless_nobody_is_told_of_the_comment() {
    let text = "FROM scratch\nCOPY a b ./ # the files\nCOPY c #/\n";
    let paths = |text: &str| shown(text).into_iter().map(|(_, written)| written.to_owned()).collect::<Vec<_>>();
    assert_eq!(paths(text), ["a", "b", "c"]);
    let skipped = format!("# check=skip=InlineCommentInInstruction\n{text}");
    assert_eq!(paths(&skipped), ["a", "b", "./", "#", "the", "c"]);
}
