//! What a program of the host gets that we start: its end with ours, and a file mode mask that hides nothing.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Group and others may read what the program makes, and not write it.
const UMASK: libc::mode_t = 0o022;

/// Has the kernel kill the program when the thread that starts it ends, however that ends, and makes its files
/// readable for all, whatever our own mask is.
///
/// The thread must outlive the program: threads of an asynchronous runtime do, those for blocking work may not.
pub fn tie_to_us(command: &mut Command) {
    let parent = std::process::id();
    let tie = move || {
        let signal = libc::SIGKILL as libc::c_ulong;
        // SAFETY: this option takes a number and touches no memory of ours.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call takes nothing and cannot fail.
        let now = unsafe { libc::getppid() };
        // Whoever died before it could be tied to is not noticed otherwise.
        if now as u32 != parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        // SAFETY: the call takes a number, and this process has no other threads.
        unsafe { libc::umask(UMASK) };
        Ok(())
    };
    // SAFETY: the closure makes three system calls; it neither allocates nor locks.
    unsafe { command.pre_exec(tie) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_s_files_have_the_usual_modes_and_it_dies_with_the_thread_that_started_it() {
        #[expect(clippy::disallowed_methods, reason = "this is what is tested")]
        let start = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).stdout(std::process::Stdio::piped());
            tie_to_us(&mut command);
            command.spawn().unwrap()
        };
        let output = start("umask").wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "0022\n");
        let mut child = std::thread::spawn(move || start("exec sleep 600")).join().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL));
    }
}
