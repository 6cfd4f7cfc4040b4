//! `COPY` and `ADD`.

use kiln_graph::llb::{ChownOpt, NamedUserOpt, OpKind, UserKind, UserOpt};

use crate::{Built, File};

fn built(instruction: &str) -> Built {
    File::new(&format!("FROM base AS other\nRUN other\nFROM base\nWORKDIR /w\n{instruction}")).build()
}

fn errors(instruction: &str) -> Vec<String> {
    File::new(&format!("FROM base\n{instruction}")).errors()
}

#[test]
fn sources_are_below_the_context_s_root_and_destinations_below_the_working_directory() {
    for (instruction, src, dest) in [
        ("COPY a /b", "/a", "/b"),
        ("COPY ../../a b", "/a", "/w/b"),
        ("COPY dir/ .", "/dir", "/w/"),
        ("COPY *.txt sub/", "/*.txt", "/w/sub/"),
        ("COPY [\"a b\", \"c d\"]", "/a b", "/w/c d"),
    ] {
        let copy = built(instruction).copies().pop().unwrap();
        assert_eq!((copy.src.as_str(), copy.dest.as_str()), (src, dest), "{instruction}");
        assert!(copy.dir_copy_contents && copy.allow_wildcard && copy.allow_empty_wildcard);
    }
}

#[test]
fn many_sources_are_copied_in_turn_by_one_step() {
    let copies = built("COPY a b/ c* d/").copies();
    assert_eq!(copies.iter().map(|copy| copy.src.as_str()).collect::<Vec<_>>(), ["/a", "/b", "/c*"]);
}

#[test]
fn files_are_taken_from_a_stage_by_name_or_number_or_from_an_image() {
    assert_eq!(built("COPY --from=other /a /").runs().len(), 1);
    assert_eq!(built("COPY --from=0 /a /").runs().len(), 1);
    assert!(built("COPY --from=alpine:3 /a /").asked.contains(&"alpine:3".to_owned()));
    assert_eq!(errors("COPY --from=0 /a /"), ["stage `stage-0` takes from itself"]);
    assert_eq!(errors("COPY --from=9 /a /"), ["there is no stage number 9"]);
}

#[test]
fn owners_by_name_are_looked_up_in_the_image_and_numbers_are_not() {
    let owner = |text: &str| built(&format!("COPY --chown={text} a b")).copies().pop().unwrap().owner;
    let id = |id| UserOpt { user: Some(UserKind::ById(id)) };
    let named = |name: &str| UserOpt { user: Some(UserKind::ByName(NamedUserOpt { name: name.into(), input: 0 })) };
    assert_eq!(owner("7"), Some(ChownOpt { user: Some(id(7)), group: None }));
    assert_eq!(owner("root:8"), Some(ChownOpt { user: Some(id(0)), group: Some(id(8)) }));
    assert_eq!(owner("app:7"), Some(ChownOpt { user: Some(named("app")), group: Some(id(7)) }));
    assert_eq!(built("COPY a b").copies().pop().unwrap().owner, None);
}

#[test]
fn modes_are_octal_up_to_7777_or_symbolic() {
    let mode = |text: &str| {
        let copy = built(&format!("COPY --chmod={text} a b")).copies().pop().unwrap();
        (copy.mode, copy.mode_str)
    };
    assert_eq!((mode("0644"), mode("7777")), ((0o644, String::new()), (0o7777, String::new())));
    assert_eq!((mode("+x").1.as_str(), mode("u=rwX,go=rX").1.as_str()), ("+x", "u=rwX,go=rX"));
    for bad in ["10000", "888", "u+y", "0o755"] {
        assert_eq!(errors(&format!("COPY --chmod={bad} a b")), [format!("`{bad}` is no way to set permissions")]);
    }
}

#[test]
fn a_linked_copy_stands_alone_also_with_a_mode() {
    for flags in ["--link", "--link=true", "--link --chmod=755", "--link --chmod=u+x --chown=1:2"] {
        let built = built(&format!("COPY {flags} a b"));
        let vertices = built.vertices();
        let merge = vertices.last().unwrap();
        assert!(matches!(merge.op.op, Some(OpKind::Merge(_))), "{flags}");
        let copy = built.lowered.definition.vertex(&merge.inputs[1].vertex).unwrap();
        assert_eq!(copy.inputs.len(), 1, "{flags}: the copy reads its source and nothing else");
    }
    assert!(!built("COPY --link=false a b").vertices().iter().any(|v| matches!(v.op.op, Some(OpKind::Merge(_)))));
}

#[test]
fn parents_keep_the_path_behind_the_pivot_and_must_be_there_without_wildcards() {
    let copy = built("COPY --parents ./x/./y/*.txt /p/").copies().pop().unwrap();
    assert_eq!((copy.src.as_str(), copy.include_patterns, copy.required_paths), ("/x", vec!["y/*.txt".into()], vec![]));
    let copy = built("COPY --parents a/b /p/").copies().pop().unwrap();
    assert_eq!((copy.src.as_str(), copy.required_paths), ("/", vec!["/a/b".to_owned()]));
    assert_eq!(built("COPY --parents **/x /p/").copies().pop().unwrap().include_patterns, ["**/x"]);
}

#[test]
fn excluded_patterns_go_with_every_source() {
    for copy in built("COPY --exclude=*.md --exclude=!a.md a b c/").copies() {
        assert_eq!(copy.exclude_patterns, ["*.md", "!a.md"]);
    }
}

#[test]
fn heredocs_become_files_and_are_expanded_unless_their_word_is_quoted() {
    let text = "FROM scratch\nENV A=1\nCOPY <<a <<\"b\" /d/\n$A \"x\"\na\n$A\nb";
    let built = File::new(text).build();
    let documents = built.documents();
    let data: Vec<&[u8]> = documents.iter().map(|file| file.data.as_slice()).collect();
    assert_eq!(data, [b"1 \"x\"\n".as_slice(), b"$A\n"]);
    assert!(documents.iter().all(|file| file.mode == 0o644));
}

#[test]
fn a_download_is_named_by_its_path_kept_for_its_owner_and_not_unpacked() {
    let plain = built("ADD https://example.com/a/b%20c.tar?x=1 /");
    let source = plain.source("https://");
    assert_eq!((source.attrs["http.filename"].as_str(), source.attrs["http.perm"].as_str()), ("b c.tar", "0600"));
    assert!(!plain.copies()[0].attempt_unpack_docker_compatibility);
    assert!(built("ADD --unpack https://example.com/a.tar /").copies()[0].attempt_unpack_docker_compatibility);
    assert_eq!(errors("COPY https://example.com/a /"), ["COPY cannot fetch `https://example.com/a`"]);
}

#[test]
fn a_download_whose_name_no_file_can_have_is_an_error_of_the_dockerfile() {
    assert_eq!(errors("ADD http://h/a%00b /"), ["the name in this URL has a zero byte, and no file's can"]);
    let long = format!("ADD http://h/{} /", "a".repeat(256));
    assert_eq!(errors(&long), ["the name in this URL has 256 bytes, and a file's can have 255"]);
    for (name, file) in [("a%2f..", "__unnamed__"), ("a%2F..%2Fb", "b"), ("%2e%2e%2f%2e%2e%2fc", "c"), ("%ff", "%ff")] {
        let built = built(&format!("ADD http://h/{name} /"));
        assert_eq!(built.source("http://").attrs["http.filename"], file, "{name}");
    }
}

#[test]
fn a_checksum_is_for_one_source_that_is_fetched() {
    let digest = format!("sha256:{}", "a".repeat(64));
    let built = built(&format!("ADD --checksum={digest} https://example.com/a /"));
    assert_eq!(built.source("https://").attrs["http.checksum"], digest);
    let wrong = |rest: &str| errors(&format!("ADD --checksum={digest} {rest} /"));
    assert_eq!(wrong("https://x/a https://x/b"), ["`--checksum` is for a single source"]);
    assert_eq!(wrong("a"), ["`--checksum` is for what is fetched, and `a` is a local path"]);
}

#[test]
fn a_repository_is_fetched_by_fragment_query_and_flags() {
    let built = built("ADD --keep-git-dir --checksum=abc https://example.com/a.git#v1:sub /d");
    let source = built.source("git://");
    assert_eq!(source.identifier, "git://example.com/a.git#v1:sub");
    assert_eq!((source.attrs["git.keepgitdir"].as_str(), source.attrs["git.checksum"].as_str()), ("true", "abc"));
    let copy = &built.copies()[0];
    assert_eq!((copy.src.as_str(), copy.dest.as_str(), copy.mode), ("/", "/d", -1));
    let conflict = errors("ADD --keep-git-dir=false https://example.com/a.git?keep-git-dir=true /");
    assert_eq!(conflict, ["`keep-git-dir` is true in the URL and false in the flag"]);
    assert_eq!(errors("ADD https://example.com/a.git?ref=a#b /"), ["`ref` is both `b` and `a`"]);
}

#[test]
fn only_urls_whose_path_ends_in_git_are_repositories() {
    built("ADD https://example.com/a.git /").source("git://");
    built("ADD git@example.com:a /").source("git://");
    built("ADD https://example.com/a.git.tar /").source("https://");
    built("ADD https://example.com/a?b=.git /").source("https://");
}

#[test]
fn repositories_are_fetched_with_the_secrets_and_agent_of_their_host() {
    let attrs = built("ADD git@example.com:a /").source("git://").attrs;
    assert_eq!(attrs["git.authtokensecret"], "GIT_AUTH_TOKEN");
    assert_eq!(attrs["git.authheadersecret"], "GIT_AUTH_HEADER");
    assert_eq!(attrs["git.mountsshsock"], "default");
}

#[test]
fn local_archives_are_unpacked_by_add_unless_told_otherwise() {
    let unpacks = |instruction: &str| built(instruction).copies()[0].attempt_unpack_docker_compatibility;
    assert!(unpacks("ADD a.tar /x") && unpacks("ADD --unpack=true a.tar /x"));
    assert!(!unpacks("ADD --unpack=false a.tar /x") && !unpacks("COPY a.tar /x"));
}
