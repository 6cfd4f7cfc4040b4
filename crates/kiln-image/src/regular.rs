//! Opens files of directories that others write into: only plain ones, and without waiting for a writer.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};

/// Opens a file for reading; `None` when it is anything but a file. What was looked at is what is opened, whatever takes
/// its name in between: a named pipe is not waited for, and no device hears of it.
pub(crate) fn open(path: &Path) -> io::Result<Option<File>> {
    let handle = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&handle)?.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    // The kernel's name of the handle: no path is walked again (proc_pid_fd(5)).
    File::open(format!("/proc/self/fd/{}", handle.as_raw_fd())).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_are_opened_and_nothing_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "f").unwrap();
        assert!(open(&path).unwrap().is_some());
        assert!(open(dir.path()).unwrap().is_none());
        let (pipe, socket) = (dir.path().join("pipe"), dir.path().join("socket"));
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(open(&pipe).unwrap().is_none() && open(&socket).unwrap().is_none());
        assert_eq!(open(&dir.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
