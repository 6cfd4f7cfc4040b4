//! Claims about what `--output` and `--load` mean.

use super::*;

#[test]
fn every_form_asks_for_one_thing() {
    let local = r#"Local { dest: "out", others: Keep, platform_split: None }"#;
    for (text, wanted) in [
        ("out", local),
        ("type=local,dest=out", local),
        ("type=local,dest=out,mode=copy", local),
        (
            "type=local,dest=out,mode=delete,platform-split=false",
            r#"Local { dest: "out", others: Delete, platform_split: Some(false) }"#,
        ),
        ("-", "Tar { dest: Stdout, platform_split: None }"),
        ("type=tar", "Tar { dest: Stdout, platform_split: None }"),
        ("type=tar,dest=a.tar", r#"Tar { dest: Path("a.tar"), platform_split: None }"#),
        ("type=cacheonly", "CacheOnly"),
    ] {
        assert_eq!(format!("{:?}", parse(text).unwrap()), wanted, "{text}");
    }
}

#[test]
fn images_are_named_pushed_and_stored_as_asked() {
    let text = r#"type=image,"name=a,localhost:5000/b:1",push=true,store=false,compression=zstd,compression-level=19"#;
    let Output::Image { image: ImageOptions { names, layers, .. }, push, store, naming } = parse(text).unwrap() else {
        panic!("an image");
    };
    assert_eq!(names.iter().map(Reference::familiar).collect::<Vec<_>>(), ["a:latest", "localhost:5000/b:1"]);
    assert_eq!((push, store, naming), (true, false, Naming::default()));
    assert_eq!((layers.compression, layers.level), (Some(CompressionKind::Zstd), Some(19)));
    assert!(matches!(parse("type=registry").unwrap(), Output::Image { push: true, store: true, .. }));
    assert!(matches!(parse("type=docker").unwrap(), Output::Load { into: None, .. }));
    assert!(matches!(parse("type=docker,dest=-").unwrap(), Output::Docker { dest: Dest::Stdout, tar: true, .. }));
    assert!(matches!(parse("type=docker,dest=d,tar=false").unwrap(), Output::Docker { tar: false, .. }));
    assert!(matches!(parse("type=oci,dest=d,tar=false").unwrap(), Output::Oci { tar: false, .. }));
}

#[test]
fn images_may_go_by_their_digest() {
    let text =
        "type=image,name=a,push=true,push-by-digest=true,name-canonical=true,dangling-name-prefix=old,unpack=true";
    let Output::Image { naming, .. } = parse(text).unwrap() else { panic!("an image") };
    let dangling_prefix = Some("old".to_owned());
    assert_eq!(naming, Naming { by_digest: true, canonical: true, dangling_prefix, dangling_when_nameless: false });
}

#[test]
fn annotations_are_taken_wherever_an_image_is_written() {
    for kind in ["image", "registry", "oci", "docker", "docker,dest=x"] {
        let mut output = parse(&format!("type={kind},annotation.a.b=c,annotation-index.d=e")).unwrap();
        let annotations = &output.image_mut().unwrap().annotations;
        assert_eq!(annotations.iter().map(|a| a.key.as_str()).collect::<Vec<_>>(), ["d", "a.b"], "{kind}");
    }
}

#[test]
fn loading_may_be_asked_for_by_name() {
    assert_eq!(load("true"), Ok(Load::Into(None)));
    assert_eq!(load("podman"), Ok(Load::Into(Some(Daemon::Podman))));
    assert_eq!(load("false"), Ok(Load::No));
    assert!(load("dokcer").is_err());
}

#[test]
fn what_is_no_output_says_why() {
    for (text, message) in [
        ("", "the destination is empty"),
        ("dest=x,name=y", "the output has no `type`"),
        ("type=imgae", "`imgae` is no type of output; did you mean `image`?"),
        ("type=oci,dset=x", "`type=oci` has no `dset`; did you mean `dest`?"),
        ("type=local", "`type=local` needs `dest=DIR`"),
        ("type=local,dest=-", "a directory cannot be written to standard output; use `type=tar`"),
        ("type=local,dest=x,mode=move", "`mode=move`: expected `copy` or `delete`"),
        ("type=oci,tar=false", "a layout directory needs `dest=DIR`"),
        ("type=docker,tar=false", "a layout directory needs `dest=DIR`"),
        ("type=image,push=maybe", "`push=maybe`: expected `true` or `false`"),
        ("type=image,compression=gzpi", "`gzpi` is no compression; did you mean `gzip`?"),
        ("type=image,compression=gzip,compression-level=10", "`10` is no compression level: expected 0 to 9"),
        (
            "type=image,compression=estargz,oci-mediatypes=false",
            "`compression=estargz` needs OCI media types; leave out `oci-mediatypes=false`",
        ),
        (
            "type=image,annotation-layer.a=b",
            "`layer` takes no annotation: expected `manifest`, `manifest-descriptor`, `index`, `index-descriptor`",
        ),
        ("type=local,dest=x,annotation.a=b", "`type=local` has no `annotation.a`"),
        (
            "type=docker,context=far",
            "`context` is not supported for `type=docker`; name docker's socket with `DOCKER_HOST`",
        ),
        ("type=image,dangling-name-prefix=A", "`dangling-name-prefix=A` is no name of an image"),
    ] {
        assert_eq!(parse(text).unwrap_err().0, message, "{text}");
    }
    assert!(parse("type=oci,registry.insecure=false").is_ok(), "what is switched off is not asked for");
    assert!(
        parse("type=oci,registry.insecure=true").is_err() && parse("type=image,prefer-nondist-layers=true").is_ok()
    );
    for (text, expected) in [("registry.insecure=true", true), ("registry.insecure=false", false), ("push=true", false)]
    {
        let output = parse(&format!("type=registry,{text}")).unwrap();
        assert_eq!(output.image().unwrap().may_be_insecure, expected, "{text}");
    }
}

#[test]
fn any_output_may_have_other_times() {
    for text in
        ["type=image", "type=oci,dest=x", "type=docker,dest=x", "type=tar,dest=x", "type=local,dest=x", "type=registry"]
    {
        let times = arg(&format!("{text},source-date-epoch=-7,rewrite-timestamp=true")).unwrap().times;
        assert_eq!(times, OutputTimes { epoch: Some(-7), rewrite: true }, "{text}");
        assert_eq!(arg(text).unwrap().times, OutputTimes::default());
    }
    assert_eq!(arg("out").unwrap().times, OutputTimes::default());
    for (text, message) in [
        ("type=tar,rewrite-timestamp=perhaps", "`rewrite-timestamp=perhaps`: expected `true` or `false`"),
        ("type=oci,source-date-epoch=noon", "`source-date-epoch=noon`: expected seconds since 1970"),
    ] {
        assert_eq!(arg(text).unwrap_err().0, message, "{text}");
    }
}
