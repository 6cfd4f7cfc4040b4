//! Running containers: one thread each, waited for without blocking.

use std::sync::{Arc, OnceLock};

use kiln_sys::caps::{self, CapabilitySet};
use kiln_sys::seccomp::Filter;
use tokio::sync::oneshot;

use crate::Error;
use crate::assemble;
use crate::chroot;
use crate::control::Control;
use crate::kit::Kit;
use crate::spec::{ContainerSpec, ExitStatus, Isolation, Stdio};

/// Runs containers. Cheap to make and to clone; what all containers share is made with the first.
#[derive(Debug, Clone, Default)]
pub struct Executor {
    isolation: Isolation,
    shared: Arc<OnceLock<Shared>>,
}

/// What all containers of a process share.
#[derive(Debug)]
pub(crate) struct Shared {
    kit: Kit,
    /// For containers with ids of their own.
    theirs: OnceLock<Kit>,
    pub(crate) nesting: Nesting,
    pub(crate) filter: Arc<Filter>,
    /// What we may ourselves: a container never gets more.
    pub(crate) permitted: CapabilitySet,
    /// How likely the kernel kills a container when memory runs out.
    pub(crate) badness: i16,
    /// Whether we are in a user namespace ourselves.
    pub(crate) is_nested: bool,
}

/// Whether parts of detached mounts can be cloned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nesting {
    /// They can (Linux 6.15).
    Direct,
    /// They must be attached for it, which is done in the container's own namespace.
    Staged,
}

/// Little is done on it, and all of that is known.
const STACK: usize = 512 << 10;

impl Executor {
    /// Makes an executor.
    pub fn new() -> Self {
        Executor::default()
    }

    /// The same, with another isolation. In a `chroot` the root is a directory, and nothing is mounted.
    #[must_use]
    pub fn isolated_by(self, isolation: Isolation) -> Self {
        Executor { isolation, ..self }
    }

    /// Runs a process in a container and gives how it ended. What the process writes goes to `stdio` as it comes.
    ///
    /// All processes of the container are dead when this returns. Dropping the future kills them, and returns when
    /// they are gone; so what was mounted for them can be removed then.
    pub async fn run(&self, spec: ContainerSpec, stdio: impl Into<Stdio>) -> Result<ExitStatus, Error> {
        let stdio = stdio.into();
        if self.isolation == Isolation::Namespaces {
            self.shared()?;
        }
        let control = Arc::new(Control::default());
        let (sender, receiver) = oneshot::channel();
        let thread = std::thread::Builder::new().name("kiln-container".into()).stack_size(STACK);
        let (executor, in_thread) = (self.clone(), Arc::clone(&control));
        let work = move || {
            let _ended = Ended(&in_thread);
            let result = match executor.isolation {
                Isolation::Namespaces => {
                    executor.shared().and_then(|shared| assemble::run(shared, spec, stdio, &in_thread))
                }
                Isolation::Chroot => chroot::run(&spec, stdio, &in_thread),
            };
            // Nobody listens to a run that was dropped.
            let _ = sender.send(result);
        };
        thread.spawn(work).map_err(|source| Error::Resources { source })?;
        let _cancel = CancelOnDrop(control);
        receiver.await.unwrap_or(Err(Error::Lost))
    }

    fn shared(&self) -> Result<&Shared, Error> {
        if let Some(shared) = self.shared.get() {
            return Ok(shared);
        }
        let shared = Shared::new()?;
        Ok(self.shared.get_or_init(|| shared))
    }
}

impl Shared {
    /// The devices of containers with ids of their own, or with the host's. The first container of the former kind has
    /// them made, by a thread that acts as its root.
    pub(crate) fn kit(&self, have_ids: bool) -> Result<&Kit, Error> {
        match (have_ids, self.theirs.get()) {
            (false, _) => Ok(&self.kit),
            (true, Some(kit)) => Ok(kit),
            (true, None) => {
                let kit = Kit::new()?;
                Ok(self.theirs.get_or_init(|| kit))
            }
        }
    }

    fn new() -> Result<Shared, Error> {
        let fail = |source| Error::Prepare { what: "containers", source };
        let permitted = caps::permitted().map_err(fail)?;
        let kit = Kit::new()?;
        let nesting = if kit.empty().is_ok() { Nesting::Direct } else { Nesting::Staged };
        Ok(Shared {
            kit,
            theirs: OnceLock::new(),
            nesting,
            filter: Arc::new(Filter::sandbox(caps::SANDBOX)),
            permitted,
            badness: badness(),
            is_nested: !kiln_sys::userns::is_machine_root(),
        })
    }
}

/// More than ourselves: who looks after containers comes last.
#[expect(clippy::disallowed_methods, reason = "the kernel's own files, by names that are written here")]
fn badness() -> i16 {
    const MORE: i16 = 300;
    const MOST: i16 = 1000;
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|text| text.trim().parse().ok());
    own.unwrap_or(0i16).saturating_add(MORE).min(MOST)
}

/// Tells the waiting side that the thread is through, even if it panicked.
struct Ended<'a>(&'a Control);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.ended();
    }
}

/// Kills a container that nobody waits for any more. For one that has ended this does nothing.
struct CancelOnDrop(Arc<Control>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::spec::{Network, ProcessIo, Security, User};

    /// This kernel may know better, but the way of older ones must lead to the same container.
    #[test]
    fn containers_can_be_put_together_by_way_of_a_stage() {
        let busybox = std::path::Path::new("/bin/busybox");
        if !rustix::process::geteuid().is_root() || !busybox.exists() {
            println!("skipped: needs root and a static `/bin/busybox`");
            return;
        }
        let image = tempfile::tempdir().unwrap();
        std::fs::copy(busybox, image.path().join("busybox")).unwrap();
        std::fs::set_permissions(image.path().join("busybox"), PermissionsExt::from_mode(0o755)).unwrap();
        let mut results = [Nesting::Direct, Nesting::Staged].map(|nesting| {
            let executor = Executor::new();
            let shared = Shared { nesting, ..Shared::new().unwrap() };
            executor.shared.set(shared).unwrap();
            let bind = kiln_sys::mount::Bind {
                depth: kiln_sys::mount::Depth::One,
                attributes: kiln_sys::mount::MountAttrFlags::empty(),
            };
            let script = "cat /proc/self/mountinfo && echo x > /dev/null";
            let spec = ContainerSpec {
                root: kiln_sys::mount::bind_path_detached(image.path(), bind).unwrap(),
                readonly_root: false,
                args: ["/busybox", "sh", "-c", script].map(String::from).into(),
                env: vec!["PATH=/".into()],
                cwd: "/".into(),
                user: User::default(),
                users: None,
                mounts: vec![],
                network: Network::Host,
                hostname: "stage".into(),
                extra_hosts: vec![],
                security: Security::Sandbox,
                shm_size: None,
                ulimits: vec![],
                group: None,
            };
            std::fs::write(image.path().join("cat"), "#!/busybox cat\n").unwrap();
            std::fs::set_permissions(image.path().join("cat"), PermissionsExt::from_mode(0o755)).unwrap();
            let (read, write) = std::io::pipe().unwrap();
            let io = ProcessIo { stdin: None, stdout: write.try_clone().unwrap().into(), stderr: write.into() };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let status = runtime.block_on(executor.run(spec, io)).unwrap();
            assert_eq!(status, ExitStatus::Code(0));
            let text = std::io::read_to_string(read).unwrap();
            text.lines().map(place_and_options).collect::<Vec<_>>()
        });
        results.iter_mut().for_each(|lines| lines.sort());
        assert_eq!(results[0], results[1]);
        assert!(results[0].len() > 20, "{results:?}");
    }

    fn place_and_options(line: &str) -> String {
        line.split(' ').skip(4).take(2).collect::<Vec<_>>().join(" ")
    }
}
