//! Programs of the host, such as git: started without a shell, with nothing of our environment, never for ever.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Child;

use crate::{Error, ExitStatus};

/// The most bytes of an output that are kept; what comes after is read and thrown away.
const KEPT: usize = 16 << 20;

/// A program to run.
#[derive(Debug, Clone)]
pub struct HostCommand {
    /// Its name, looked up in `PATH` of `env`, or its path.
    pub program: String,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// All of its environment.
    pub env: Vec<(String, OsString)>,
    /// Where it works.
    pub cwd: PathBuf,
    /// How long it may take.
    pub patience: Duration,
}

/// What a program said, and how it ended.
#[derive(Debug)]
pub struct HostOutput {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

impl HostCommand {
    /// Runs it to its end. It reads nothing. It and what it started are killed when it takes too long, when the future
    /// is dropped, and when we die.
    pub async fn run(self) -> Result<HostOutput, Error> {
        let cannot = |source| Error::HostProgram { program: self.program.clone(), source };
        let mut child = self.start().map_err(cannot)?;
        let _group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let all = async { tokio::join!(collect(stdout), collect(stderr), child.wait()) };
        let Ok((stdout, stderr, status)) = tokio::time::timeout(self.patience, all).await else {
            return Err(Error::HostPatience { program: self.program, patience: self.patience });
        };
        let status = status.map_err(cannot)?;
        let ended = std::os::unix::process::ExitStatusExt::signal(&status);
        Ok(HostOutput {
            status: ended.map_or_else(|| ExitStatus::Code(status.code().unwrap_or(-1)), ExitStatus::Signal),
            stdout: stdout.map_err(cannot)?,
            stderr: stderr.map_err(cannot)?,
        })
    }

    fn start(&self) -> std::io::Result<Child> {
        #[expect(clippy::disallowed_methods, reason = "this is the place where programs of the host are started")]
        let mut command = std::process::Command::new(&self.program);
        command.args(&self.args).env_clear().envs(self.env.iter().map(|(name, value)| (name, value)));
        command.current_dir(&self.cwd).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        kiln_sys::command::tie_to_us(&mut command);
        // A group of its own, so that its helpers can be killed with it.
        let mut command = tokio::process::Command::from(command);
        command.process_group(0).kill_on_drop(true).spawn()
    }
}

/// A program with all it started; killed when nobody waits for it any more.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Usually all of it has ended long since.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

async fn collect(stream: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let (mut kept, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    let Some(mut stream) = stream else { return Ok(kept) };
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(kept),
            read => kept.extend_from_slice(&buffer[..read.min(KEPT - kept.len())]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn shell(script: &str, patience: Duration) -> HostCommand {
        HostCommand {
            program: "sh".into(),
            args: vec!["-c".into(), script.into()],
            env: vec![("PATH".into(), "/usr/bin:/bin".into()), ("ONLY".into(), "this".into())],
            cwd: "/".into(),
            patience,
        }
    }

    fn is_alive(pid: i32) -> bool {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    }

    #[tokio::test]
    async fn a_program_gets_its_environment_and_no_input_and_says_how_it_ended() {
        let script =
            "env | grep -cv -e ^PATH= -e ^ONLY= -e ^PWD= -e ^_= -e ^SHLVL= -e ^OLDPWD=; cat; echo bad >&2; exit 7";
        let output = shell(script, Duration::from_secs(30)).run().await.unwrap();
        assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"0\n"[..], &b"bad\n"[..]));
        assert_eq!(output.status, ExitStatus::Code(7));
        let none = HostCommand { program: "no-such-program".into(), ..shell("", Duration::from_secs(1)) };
        assert_eq!(none.run().await.unwrap_err().to_string(), "cannot run `no-such-program`");
    }

    #[tokio::test]
    async fn what_takes_too_long_and_what_is_dropped_dies_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", path.display());
        let begun = Instant::now();
        let error = shell(&script, Duration::from_millis(500)).run().await.unwrap_err();
        assert!(matches!(error, Error::HostPatience { .. }) && begun.elapsed() < Duration::from_secs(20));
        let late: i32 = std::fs::read_to_string(&path).unwrap().trim().parse().unwrap();
        std::fs::remove_file(&path).unwrap();
        let dropped = tokio::time::timeout(Duration::from_millis(500), shell(&script, Duration::from_secs(600)).run());
        assert!(dropped.await.is_err());
        let left: i32 = std::fs::read_to_string(&path).unwrap().trim().parse().unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!is_alive(late) && !is_alive(left));
    }
}
