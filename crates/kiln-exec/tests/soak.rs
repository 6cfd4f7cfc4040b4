//! Many containers at once, and what is left of them: nothing. Alone in its process, because it counts.
#![allow(clippy::disallowed_methods, reason = "tests name files of the machine")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

#[allow(dead_code, reason = "shared with other tests")]
mod support;

use kiln_exec::{Executor, ExitStatus, Network};
use support::{Image, descriptors, eventually, processes};

#[test]
fn two_hundred_containers_from_four_threads_leave_nothing() {
    if let Some(why) = support::obstacle() {
        println!("skipped: {why}");
        return;
    }
    let executor = Executor::new();
    let warm = Image::new();
    assert_eq!(support::run_on(&executor, warm.spec(&["true"])).unwrap().status, ExitStatus::Code(0));
    let before = Counts::take();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let executor = &executor;
            scope.spawn(move || fifty_containers(executor, thread));
        }
    });
    assert_eq!(processes("sleep 76767"), Vec::<u32>::new());
    assert!(eventually(|| Counts::take().is_within(&before)), "{before:?} before, {:?} after", Counts::take());
}

fn fifty_containers(executor: &Executor, thread: i32) {
    let image = Image::new();
    for round in 0..50 {
        let code = (thread * 50 + round) % 100;
        let script = format!("echo {code}; (sleep 76767 &); exit {code}");
        let mut spec = image.spec(&["sh", "-c", &script]);
        spec.network = if round % 2 == 0 { Network::Host } else { Network::None };
        let ran = support::run_on(executor, spec).unwrap();
        assert_eq!(ran.status, ExitStatus::Code(code), "{}", ran.stderr);
        assert_eq!(ran.stdout, format!("{code}\n"));
    }
    assert_eq!(image.changes(), Vec::<String>::new());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(image.base("").to_str().unwrap()), "{mounts}");
}

/// What holds containers, their mounts and their networks alive; the machine's own tables have others' entries too.
#[derive(Debug)]
struct Counts {
    descriptors: usize,
    threads: usize,
    children: usize,
}

impl Counts {
    fn is_within(&self, other: &Counts) -> bool {
        self.descriptors <= other.descriptors && self.threads <= other.threads && self.children <= other.children
    }

    fn take() -> Counts {
        let entries = |path: &str| std::fs::read_dir(path).unwrap().count();
        let children = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let children = children.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
        Counts {
            descriptors: descriptors().len(),
            threads: entries("/proc/self/task"),
            children: children.map(|list| list.split_whitespace().count()).sum(),
        }
    }
}
