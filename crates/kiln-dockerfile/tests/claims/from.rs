//! Stages, what they begin with, and what begins with them.

use kiln_graph::llb::OpKind;
use serde_json::json;

use crate::File;

#[test]
fn an_image_is_named_by_tag_and_digest_together() {
    let digest = format!("sha256:{}", "a".repeat(64));
    let built = File::new(&format!("FROM base:1@{digest} AS a")).build();
    assert_eq!(built.asked, [format!("base:1@{digest}")]);
}

#[test]
fn scratch_has_no_files_and_stages_are_found_in_any_case() {
    assert!(File::new("FROM scratch").build().lowered.root.is_none());
    let built = File::new("FROM base AS Tools\nRUN a\nFROM TOOLS\nCOPY --from=tOOLS /a /").build();
    assert_eq!((built.asked.len(), built.runs().len()), (1, 1));
}

#[test]
fn names_of_stages_begin_with_a_letter_and_hold_no_symbols() {
    for good in ["a", "A1", "a-b_c.d"] {
        File::new(&format!("FROM base AS {good}")).build();
    }
    for bad in ["1a", "-a", "a/b", "a:b", "ä"] {
        let errors = File::new(&format!("FROM base AS {bad}")).errors();
        assert_eq!(errors, [format!("`{bad}` cannot be the name of a stage")]);
    }
}

#[test]
fn a_stage_waits_for_those_it_comes_after_and_takes_nothing_from_them() {
    let built = File::new("FROM base AS tests\nRUN test\nFROM --after=tests base\nRUN ship").build();
    assert_eq!(built.runs().len(), 2);
    let vertices = built.vertices();
    let order = vertices.iter().find(|v| matches!(v.op.op, Some(OpKind::Merge(_)))).unwrap();
    let Some(OpKind::Merge(merge)) = &order.op.op else { unreachable!() };
    assert_eq!((order.inputs.len(), merge.inputs.len(), merge.inputs[0].input), (2, 1, 0));
    assert_eq!(File::new("FROM --after=no base").errors(), ["no stage above is called `no`"]);
}

#[test]
fn unused_stages_are_not_built_and_their_images_not_asked_for() {
    let text = "FROM unused AS a\nRUN a\nFROM base AS b\nRUN b\nFROM base\nCOPY --from=b / /\nFROM other";
    let built = File::new(text).target("2").build();
    assert_eq!((built.asked.clone(), built.runs().len()), (vec!["base".to_owned()], 1));
}

#[test]
fn a_named_context_stands_before_a_stage_and_a_stage_before_an_image() {
    let text = "FROM base AS one\nRUN one\nFROM base AS two\nRUN two\nFROM base\nCOPY --from=one /a /\nCOPY --from=two /a /\n\
                COPY --from=three /a /";
    let built = File::new(text).context("one", "dir-one").context("three", "dir-three").build();
    assert_eq!(built.runs().len(), 1);
    let mut local: Vec<_> = built.sources().into_iter().map(|op| op.identifier).collect();
    local.retain(|identifier| identifier.starts_with("local"));
    assert_eq!(local, ["local://dir-one", "local://dir-three"]);
    assert_eq!(built.asked, ["base"]);
}

#[test]
fn a_context_may_be_a_stage_of_the_file() {
    let text = "FROM base AS one\nRUN one\nFROM base AS two\nRUN two\nFROM two\nCOPY --from=three /a /";
    let built = File::new(text).context_of_stage("two", "ONE").context_of_stage("three", "0").build();
    let commands: Vec<_> = built.runs().into_iter().map(|run| run.meta.unwrap().args[2].clone()).collect();
    assert_eq!(commands, ["one"]);
    assert_eq!(
        File::new(text).context_of_stage("base", "two").errors(),
        [
            "context `base` is stage `two`, and no stage above has that name",
            "context `base` is stage `two`, and no stage above has that name"
        ]
    );
    assert_eq!(File::new(text).context_of_stage("two", "one").target("two").build().lowered.target_name, "one");
}

#[test]
fn a_context_for_one_platform_stands_before_one_for_all() {
    let file = || File::new("FROM base").context("base::linux/arm64", "arm").context("base", "any");
    assert_eq!(file().platform("linux/arm64/v8").build().sources()[0].identifier, "local://arm");
    assert_eq!(file().build().sources()[0].identifier, "local://any");
}

#[test]
fn triggers_run_right_after_from_and_grandchildren_do_not_have_them() {
    let built = File::new("FROM parent AS child\nRUN own\nFROM child\nRUN grandchild")
        .base(json!({"Env": ["PATH=/bin"], "OnBuild": ["RUN trigger"]}))
        .build();
    let commands: Vec<_> = built.runs().into_iter().map(|run| run.meta.unwrap().args[2].clone()).collect();
    assert_eq!(commands, ["trigger", "own", "grandchild"]);
    assert!(built.lowered.config.config.on_build.is_empty());
}

#[test]
fn triggers_may_take_from_stages_and_images() {
    let text = "FROM base AS tools\nRUN tool\nFROM base AS parent\nONBUILD COPY --from=tools /t /\n\
                ONBUILD RUN --mount=type=bind,from=other,target=/o x\nFROM parent";
    let built = File::new(text).build();
    assert_eq!((built.runs().len(), built.copies().len()), (2, 1));
    assert!(built.asked.contains(&"other".to_owned()));
}

#[test]
fn triggers_of_a_base_are_one_instruction_each_and_begin_no_stage() {
    let file = |trigger: &str| File::new("FROM base").base(json!({"OnBuild": [trigger]}));
    let huge = format!("RNU {}", "x".repeat(1_000_000));
    for trigger in ["FROM evil", "RUN a\nRUN b", "", "# nothing", "RUN <<E\nnever", "ONBUILD FROM x", &huge] {
        let errors = file(trigger).errors();
        assert_eq!(errors.len(), 1, "{errors:?}");
        let line = trigger.lines().next().unwrap_or_default();
        let shown: String = line.chars().take(200).collect();
        assert!(errors[0].starts_with(&format!("trigger `{shown}")) && errors[0].len() < 500, "{}", errors[0]);
    }
    let escaped = file("# escape=`\nRUN a `\n b").build();
    assert_eq!(escaped.runs()[0].meta.as_ref().unwrap().args[2], "a  b");
    let handed_on = file("ONBUILD RUN x").build();
    assert_eq!((handed_on.runs().len(), handed_on.lowered.config.config.on_build), (0, vec!["RUN x".to_owned()]));
}

#[test]
fn triggers_hold_no_onbuild_from_or_maintainer() {
    for (trigger, wanted) in [
        ("ONBUILD RUN x", "ONBUILD cannot trigger another ONBUILD"),
        ("FROM x", "ONBUILD cannot trigger FROM"),
        ("MAINTAINER x", "ONBUILD cannot trigger MAINTAINER"),
    ] {
        assert_eq!(File::new(&format!("FROM base\nONBUILD {trigger}")).errors(), [wanted]);
    }
}
