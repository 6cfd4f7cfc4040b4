//! Caches for others: written by one machine, used by another whose state is empty.

use std::fs;
use std::path::{Path, PathBuf};

use kiln_testkit::Registry;

use crate::project::{Project, Run};

/// A registry with a base, and a project that was built upon it with these arguments.
pub(crate) struct Origin {
    registry: Registry,
    base: String,
    pub(crate) project: Project,
}

/// Two stages: what one compiles, the other copies; and two steps upon that.
pub(crate) const STAGES: &str = "FROM BASE AS build\nRUN echo compiling; echo out > /out; echo obj > /obj\n\
    FROM BASE\nCOPY f /f\nCOPY --from=build /out /out\nRUN echo linking; cat /f /out > /all\n";

impl Origin {
    pub(crate) fn new(dockerfile: &str) -> Option<Self> {
        let registry = Registry::start()?;
        let base = format!("{}/base:v1", registry.host());
        let project = Project::new();
        project.kiln(&["tag", "busybox", &base]).ok();
        project.kiln(&["push", &base]).ok();
        let origin = Self { registry, base, project };
        origin.describe(&origin.project, dockerfile);
        Some(origin)
    }

    fn describe(&self, project: &Project, dockerfile: &str) {
        project.file("f", "f\n").dockerfile(&dockerfile.replace("BASE", &self.base));
    }

    /// A machine that has never built anything, with the same project.
    pub(crate) fn elsewhere(&self, dockerfile: &str) -> Project {
        let other = Project::bare();
        self.describe(&other, dockerfile);
        other
    }

    fn push(&self, name: &str, more: &[&str]) {
        let context = self.project.context();
        let args = [&["build", "-t", name, "--push"], more, &[context.to_str().unwrap()]].concat();
        self.project.kiln(&args).ok();
    }

    fn cache(&self, name: &str) -> String {
        format!("{}/{name}:cache", self.registry.host())
    }
}

/// How many RUN steps were run.
pub(crate) fn runs(run: &Run) -> usize {
    run.stderr.lines().filter(|line| line.ends_with("compiling") || line.ends_with("linking")).count()
}

fn blobs(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("blobs/sha256")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

pub(crate) fn image_id(project: &Project) -> String {
    project.inspect("app")["Id"].as_str().unwrap().to_owned()
}

#[test]
fn a_cache_in_a_registry_spares_an_empty_machine_all_steps() {
    let Some(origin) = Origin::new(STAGES) else { return };
    let cache = origin.cache("max");
    let to = format!("type=registry,ref={cache},mode=max");
    assert_eq!(runs(&origin.project.build(&["--cache-to", &to]).ok()), 2);
    let other = origin.elsewhere(STAGES);
    let forecast = other.build(&["--cache-from", &cache, "--dry-run"]).ok().stdout;
    assert!(forecast.ends_with("\n0 would run, 5 cached\n"), "{forecast}");
    assert_eq!(fs::read_dir(other.state().join("layers")).unwrap().count(), 0, "to look fetches nothing");
    let run = other.build(&["--cache-from", &cache]).ok().says("importing cache manifest from");
    assert_eq!((runs(&run), run.cached()), (0, 5), "{}", run.stderr);
    assert_eq!(image_id(&other), image_id(&origin.project), "times travel too");
    assert_eq!(other.sh("cat /all"), "f\nout\n");
    // What was fetched is kept, so that the next build needs no cache.
    assert_eq!(runs(&other.build(&[]).ok()), 0);
}

#[test]
fn only_the_layers_of_what_is_used_are_fetched() {
    let Some(origin) = Origin::new(STAGES) else { return };
    let (all, few) = (origin.project.path().join("max"), origin.project.path().join("min"));
    for (dir, mode) in [(&all, "max"), (&few, "min")] {
        let to = format!("type=local,dest={},mode={mode}", dir.display());
        origin.project.build(&["--cache-to", &to]).ok();
    }
    let is_spare = |path: &PathBuf| {
        let is_layer = !fs::read(path).unwrap().starts_with(b"{");
        is_layer && !few.join("blobs/sha256").join(path.file_name().unwrap()).exists()
    };
    let spare: Vec<PathBuf> = blobs(&all).into_iter().filter(is_spare).collect();
    assert_eq!(spare.len(), 1, "the layer of the stage that is copied from");
    fs::remove_file(&spare[0]).unwrap();
    let from = format!("type=local,src={}", all.display());
    let run = origin.elsewhere(STAGES).build(&["--cache-from", &from]).ok().never_says("warning");
    assert_eq!(runs(&run), 0, "{}", run.stderr);
}

#[test]
fn a_small_cache_has_the_results_of_the_image_and_nothing_below_its_copies() {
    let Some(origin) = Origin::new(STAGES) else { return };
    let cache = origin.cache("min");
    origin.project.build(&["--cache-to", &cache]).ok();
    let other = origin.elsewhere(STAGES);
    assert_eq!(runs(&other.build(&["--cache-from", &cache]).ok()), 0);
    // The stage's own result did not travel: what looks at something else of it must run it.
    let changed = STAGES.replace("--from=build /out /out", "--from=build /out /other");
    let third = origin.elsewhere(&changed.replace("/f /out", "/f /other"));
    let run = third.build(&["--cache-from", &cache]).ok();
    assert_eq!(runs(&run), 2, "{}", run.stderr);
}

#[test]
fn a_cache_within_the_image_serves_its_steps() {
    let Some(origin) = Origin::new(STAGES) else { return };
    let name = origin.cache("app");
    for ask in [&["--cache-to", "type=inline"][..], &["--build-arg", "BUILDKIT_INLINE_CACHE=1"]] {
        origin.push(&name, ask);
        let other = origin.elsewhere(STAGES);
        let run = other.build(&["--cache-from", &name]).ok();
        assert_eq!(runs(&run), 0, "{}", run.stderr);
        assert_eq!(other.sh("cat /all"), "f\nout\n");
    }
    origin.push(&name, &[]);
    let other = origin.elsewhere(STAGES);
    let run = other.build(&["--cache-from", &name]).ok().says("the image carries none");
    assert_eq!(runs(&run), 2);
}

#[test]
fn what_was_found_elsewhere_and_not_fetched_is_passed_on() {
    let Some(origin) = Origin::new(STAGES) else { return };
    let (first, second) = (origin.cache("first"), origin.cache("second"));
    origin.project.build(&["--cache-to", &format!("type=registry,ref={first},mode=max")]).ok();
    let middle = origin.elsewhere(STAGES);
    let to = format!("type=registry,ref={second},mode=max");
    assert_eq!(runs(&middle.build(&["--cache-from", &first, "--cache-to", &to]).ok()), 0);
    // The last step is another: only it runs, and the stage below is neither run nor needed.
    let changed = STAGES.replace("/all", "/both");
    let run = origin.elsewhere(&changed).build(&["--cache-from", &second]).ok();
    assert_eq!(runs(&run), 1, "{}", run.stderr);
}

#[test]
fn other_shapes_and_compressions_are_read_too() {
    let Some(origin) = Origin::new(STAGES) else { return };
    let dir = origin.project.path().join("cache");
    for (n, more) in
        ["image-manifest=false", "oci-mediatypes=false", "compression=zstd,force-compression=true"].iter().enumerate()
    {
        let to = format!("type=local,dest={},mode=max,tag=t{n},{more}", dir.display());
        origin.project.build(&["--cache-to", &to]).ok();
        let from = format!("type=local,src={},tag=t{n}", dir.display());
        let run = origin.elsewhere(STAGES).build(&["--cache-from", &from]).ok();
        assert_eq!(runs(&run), 0, "{more}: {}", run.stderr);
    }
}

#[test]
fn a_directory_that_is_reset_has_only_what_its_caches_need() {
    let Some(origin) = Origin::new(STAGES) else { return };
    let dir = origin.project.path().join("cache");
    let to = format!("type=local,dest={},mode=max", dir.display());
    origin.project.build(&["--cache-to", &to]).ok();
    let before = blobs(&dir).len();
    origin.describe(&origin.project, &STAGES.replace("echo out", "echo more"));
    origin.project.build(&["--cache-to", &to]).ok();
    assert!(blobs(&dir).len() > before);
    origin.project.build(&["--cache-to", &format!("{to},reset=true")]).ok();
    assert_eq!(blobs(&dir).len(), before);
    let from = format!("type=local,src={}", dir.display());
    let other = origin.elsewhere(&STAGES.replace("echo out", "echo more"));
    assert_eq!(runs(&other.build(&["--cache-from", &from]).ok()), 0);
}

#[test]
fn a_cache_that_is_missing_broken_or_lying_is_a_miss_with_a_warning() {
    let Some(origin) = Origin::new(STAGES) else { return };
    let dir = origin.project.path().join("cache");
    let to = format!("type=local,dest={},mode=max", dir.display());
    origin.project.build(&["--cache-to", &to]).ok();
    let from = format!("type=local,src={}", dir.display());
    let whole: Vec<(PathBuf, Vec<u8>)> =
        blobs(&dir).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    let is_json = |bytes: &[u8]| bytes.starts_with(b"{");
    let spoil = |part: &str| {
        for (path, bytes) in &whole {
            match (part, is_json(bytes)) {
                ("wrong layers", false) => fs::write(path, vec![7; bytes.len()]).unwrap(),
                ("missing layers", false) => fs::remove_file(path).unwrap(),
                ("wrong documents", true) => fs::write(path, &bytes[..bytes.len() / 2]).unwrap(),
                _ => fs::write(path, bytes).unwrap(),
            }
        }
    };
    for part in ["wrong layers", "missing layers", "wrong documents"] {
        spoil(part);
        let other = origin.elsewhere(STAGES);
        let run = other.build(&["--cache-from", &from]).ok().says("warning: ").says("is not used");
        assert_eq!(runs(&run), 2, "{part}: {}", run.stderr);
        assert_eq!(other.sh("cat /all"), "f\nout\n");
    }
    let nowhere = format!("type=local,src={}", origin.project.path().join("nosuch").display());
    let missing = [&nowhere, &origin.cache("nosuch")];
    for from in missing {
        let run = origin.elsewhere(STAGES).build(&["--cache-from", from]).ok().says("nosuch").says("is not used");
        assert_eq!(runs(&run), 2);
    }
}

#[test]
fn a_rotten_layer_that_no_step_needs_fails_no_build_that_passes_it_on() {
    let Some(origin) = Origin::new(STAGES) else { return };
    let dir = origin.project.path().join("cache");
    let place = dir.display();
    let (to, from) = (format!("type=local,dest={place},mode=max"), format!("type=local,src={place}"));
    origin.project.build(&["--cache-to", &to]).ok();
    let whole: Vec<(PathBuf, Vec<u8>)> =
        blobs(&dir).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    let index = fs::read(dir.join("index.json")).unwrap();
    let mut is_left_out = false;
    for (rotten, bytes) in whole.iter().filter(|(_, bytes)| !bytes.starts_with(b"{")) {
        whole.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
        fs::write(dir.join("index.json"), &index).unwrap();
        fs::write(rotten, vec![7; bytes.len()]).unwrap();
        let run = origin.elsewhere(STAGES).build(&["--cache-from", &from, "--cache-to", &to]).ok();
        is_left_out |= run.stderr.contains("are not passed on");
    }
    assert!(is_left_out, "no layer was only passed on");
}

#[test]
fn a_cache_is_not_used_when_none_is_wanted_and_not_written_when_the_build_fails() {
    let Some(origin) = Origin::new(STAGES) else { return };
    let cache = origin.cache("app");
    let broken = STAGES.replace("cat /f", "cat /nosuch");
    origin.elsewhere(&broken).build(&["--cache-to", &cache]).fails(1);
    let run = origin.elsewhere(STAGES).build(&["--cache-from", &cache]).ok().says("is not used");
    assert_eq!(runs(&run), 2);
    origin.project.build(&["--cache-to", &cache]).ok();
    let run = origin.elsewhere(STAGES).build(&["--cache-from", &cache, "--no-cache"]).ok();
    assert_eq!(runs(&run), 2);
    run.never_says("importing");
}

#[test]
fn a_cache_that_cannot_be_written_fails_the_build_unless_that_is_all_right() {
    let Some(origin) = Origin::new(STAGES) else { return };
    let to = "type=registry,ref=127.0.0.1:1/nosuch:cache";
    origin.project.build(&["--cache-to", to]).fails(3).says("127.0.0.1:1");
    origin
        .project
        .build(&["--cache-to", &format!("{to},ignore-error=true")])
        .ok()
        .says("warning: a cache was not written");
}
