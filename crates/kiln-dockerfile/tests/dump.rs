//! The tree in BuildKit's form, by example.

use kiln_dockerfile::parse_shape;

/// The dump of a text, or the messages when it has no shape.
fn dump(text: &str) -> Result<String, Vec<String>> {
    let (file, errors) = parse_shape(text);
    if errors.is_empty() { Ok(file.dump()) } else { Err(errors.into_iter().map(|error| error.message).collect()) }
}

#[test]
fn every_instruction_is_dumped_in_its_own_shape() {
    for (text, wanted) in [
        ("FROM a AS b", r#"(from "a" "AS" "b")"#),
        ("from --platform=x a", r#"(from ["--platform=x"] "a")"#),
        ("RUN  echo  a ", r#"(run "echo  a")"#),
        ("RUN [\"a\", \"b \\\"\"]", r#"(run "a" "b \"")"#),
        ("RUN", "(run)"),
        ("CMD []", "(cmd)"),
        ("ENV a=b c=\"d e\"", r#"(env "a" "b" "=" "c" "\"d e\"" "=")"#),
        ("ENV a b c", r#"(env "a" "b c" "")"#),
        ("LABEL", "(label)"),
        ("ARG a b=\"c d\"", r#"(arg "a" "b=\"c d\"")"#),
        ("COPY --link --from=\"x\" a\tb c", r#"(copy ["--link" "--from=x"] "a" "b" "c")"#),
        ("EXPOSE 80  81", r#"(expose "80" "81")"#),
        ("HEALTHCHECK --retries=3 CMD [\"a\"]", r#"(healthcheck ["--retries=3"] "CMD" "a")"#),
        ("HEALTHCHECK NONE", r#"(healthcheck "NONE")"#),
        ("ONBUILD RUN a b", r#"(onbuild (run "a b"))"#),
        ("ONBUILD ONBUILD ADD --x [\"a\"]", r#"(onbuild (onbuild (add ["--x"] "a")))"#),
        ("USER a b", r#"(user "a b")"#),
        ("RUN <<E cat\nx\nE", r#"(run "<<E cat")"#),
        ("WHAT ever", r#"(what "")"#),
        ("\\\n", r#"("")"#),
        ("FROM a\n\n# c\nRUN b \\\n# d\n c", "(from \"a\")\n(run \"b  c\")"),
    ] {
        assert_eq!(dump(text).as_deref(), Ok(wanted), "{text:?}");
    }
}

#[test]
fn a_text_without_shape_has_no_dump() {
    for (text, message) in [
        ("", "the Dockerfile has no instructions"),
        ("# only\n", "the Dockerfile has no instructions"),
        ("ENV PATH", "ENV `PATH` has no value"),
        ("ENV a=b c", "`c` in ENV has no `=`"),
        ("CMD [\"a\", [\"b\"]]", "a JSON array of arguments may hold strings only"),
        ("RUN <<E\nx", "heredoc `E` never ends"),
        ("# escape=x\nRUN a", "`x` cannot be the escape character"),
        ("# escape=`\n# escape=`\nRUN a", "directive `escape` is set twice"),
    ] {
        assert_eq!(dump(text), Err(vec![message.to_owned()]), "{text:?}");
    }
}

#[test]
fn what_instructions_mean_is_no_matter_of_their_shape() {
    assert_eq!(dump("RUN --unknown a").as_deref(), Ok(r#"(run ["--unknown"] "a")"#));
    assert_eq!(dump("COPY a").as_deref(), Ok(r#"(copy "a")"#));
}
