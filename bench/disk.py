"""A filesystem of its own for each case: a file on the work directory's disk, formatted and mounted.

Every case begins on a filesystem without a past, and what it has made goes away in one piece. Millions of files deleted one by
one would take longer than the builds, above all where the disk is told of each freed block (the mount option `discard`), and files
created soon after many were deleted take longer. The file is read and written without the page cache in between (direct IO).
"""

import os
import subprocess

from room import Failed

SIZE = 34 << 30  # bytes at most; only what is written is taken from the disk


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise Failed(f"{' '.join(command)}: {done.stdout.strip()}\nhint: `--plain` does without filesystems in files")
    return done.stdout.strip()


class Disk:
    """Mounted at `path` until it is closed. The mount is seen by this process's name space only."""

    def __init__(self, path):
        self.path, self.file = path, f"{path}.img"
        os.makedirs(path)
        with open(self.file, "wb") as file:
            file.truncate(SIZE)
        run("mkfs.ext4", "-q", "-F", self.file)
        device = run("losetup", "--direct-io=on", "--find", "--show", self.file)
        try:
            run("mount", "-o", "relatime", device, path)
        finally:
            # It goes with the last mount of it, whatever happens to us.
            run("losetup", "--detach", device)
        os.rmdir(os.path.join(path, "lost+found"))

    def trim(self):
        """Gives back to the disk below what was removed here."""
        run("fstrim", self.path)

    def close(self):
        # What still has a file open there keeps it a little longer; the name is gone at once.
        run("umount", "--lazy", self.path)
        os.remove(self.file)
        os.rmdir(self.path)
