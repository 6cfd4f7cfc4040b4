//! Caches in stores of objects: the same as in registries, and no store's secrets in what is said.

use kiln_testkit::{ActionsServer, AzureServer, S3Server};

use crate::project::Run;
use crate::remote_cache::{Origin, STAGES, image_id, runs};

/// Insists that no credentials are said.
#[track_caller]
fn hushed(run: Run) -> Run {
    // The secret parts of the servers' keys, tokens and addresses.
    ["hushed", AzureServer::KEY, "sig=", "Signature="].iter().fold(run, |run, secret| run.never_says(secret))
}

/// A build writes a cache there, and an empty machine finds everything in it.
fn spares_an_empty_machine_all_steps(attributes: &str) {
    let Some(origin) = Origin::new(STAGES) else { return };
    let run = origin.project.build(&["--cache-to", &format!("{attributes},mode=max")]).ok();
    assert_eq!(runs(&hushed(run.says("exporting cache to"))), 2);
    let other = origin.elsewhere(STAGES);
    let run = hushed(other.build(&["--cache-from", attributes]).ok().never_says("warning"));
    assert_eq!((runs(&run), run.cached()), (0, 5), "{}", run.stderr);
    assert_eq!(image_id(&other), image_id(&origin.project), "times travel too");
    assert_eq!(other.sh("cat /all"), "f\nout\n");
    // A second export sends nothing that is there, and what was not fetched is found there all the same.
    let third = origin.elsewhere(&STAGES.replace("/all", "/both"));
    let both = ["--cache-from", attributes, "--cache-to", &format!("{attributes},mode=max")];
    assert_eq!(runs(&hushed(third.build(&both).ok().never_says("warning"))), 1);
    let fourth = origin.elsewhere(&STAGES.replace("/all", "/both"));
    assert_eq!(runs(&fourth.build(&["--cache-from", attributes]).ok()), 0);
}

/// Mounts that a build exports there are found by an empty machine.
fn carries_cache_mounts(attributes: &str) {
    const MOUNTS: &str =
        "FROM BASE\nRUN --mount=type=cache,id=x,target=/c cat /c/kept > /kept || echo kept > /c/kept\n";
    let Some(origin) = Origin::new(MOUNTS) else { return };
    origin.project.build(&["--cache-to", &format!("{attributes},name=m,mounts=all")]).ok();
    let other = origin.elsewhere(&MOUNTS.replace("cat", "cat -u"));
    other.build(&["--cache-from", &format!("{attributes},name=m")]).ok();
    assert_eq!(other.sh("cat /kept"), "kept\n");
}

#[test]
fn a_bucket_is_a_cache() {
    let Some(server) = S3Server::start() else { return };
    spares_an_empty_machine_all_steps(&server.attributes());
    carries_cache_mounts(&server.attributes());
}

#[test]
fn a_container_of_azure_is_a_cache() {
    let Some(server) = AzureServer::start() else { return };
    spares_an_empty_machine_all_steps(&server.attributes());
    carries_cache_mounts(&server.attributes());
}

#[test]
fn the_cache_of_actions_is_a_cache() {
    let server = ActionsServer::start();
    spares_an_empty_machine_all_steps(&server.attributes());
}

#[test]
fn a_store_that_is_missing_broken_or_denied_is_a_miss_on_the_way_in_and_an_error_on_the_way_out() {
    let server = ActionsServer::start();
    let Some(origin) = Origin::new(STAGES) else { return };
    let gha = server.attributes();
    origin.project.build(&["--cache-to", &gha]).ok();
    let nobody = "endpoint_url=http://127.0.0.1:1,access_key_id=i,secret_access_key=hushed";
    for (attributes, code) in [
        (format!("type=s3,bucket=b,region=r,retry_max_attempts=1,{nobody}"), 3),
        (format!("{gha}-wrong"), 1),
        ("type=azblob,account_url=http://127.0.0.1:1/a,account_name=a,secret_access_key=aHVzaGVk".to_owned(), 3),
    ] {
        let other = origin.elsewhere(STAGES);
        let run = hushed(other.build(&["--cache-from", &attributes]).ok().says("is not used"));
        assert_eq!(runs(&run), 2, "{}", run.stderr);
        hushed(other.build(&["--cache-to", &attributes]).fails(code).says("127.0.0.1"));
        let forgiven = format!("{attributes},ignore-error=true");
        hushed(other.build(&["--cache-to", &forgiven]).ok().says("a cache was not written"));
    }
    // The index leads to layers that are not what it says.
    server.spoil(|key, bytes| {
        if key.starts_with("buildkit-blob") {
            bytes.fill(7);
        }
    });
    let run = hushed(origin.elsewhere(STAGES).build(&["--cache-from", &gha]).ok().says("warning: "));
    assert_eq!(runs(&run), 2, "{}", run.stderr);
    server.spoil(|_, bytes| bytes.truncate(3));
    let run = hushed(origin.elsewhere(STAGES).build(&["--cache-from", &gha]).ok().says("is not used"));
    assert_eq!(runs(&run), 2, "{}", run.stderr);
}

#[test]
fn outside_a_workflow_the_cache_of_actions_is_a_warning() {
    let Some(origin) = Origin::new("FROM BASE\nRUN true\n") else { return };
    let both = ["--cache-from", "type=gha", "--cache-to", "type=gha,mode=max"];
    origin.project.build(&both).ok().says("is not used").says("a cache was not written");
}
