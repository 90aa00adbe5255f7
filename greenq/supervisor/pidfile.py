"""The pid file: tells where the main process is, and keeps a second one from starting.

The lock is what says that the file is in use, not the number in it: it goes away with
its process, however that ended, and cannot be mistaken for a later process that got the
same pid. The number is for people, for scripts, and for files that somebody else wrote.
"""

from __future__ import annotations

import fcntl
import os
import stat

import psutil

_MODE = 0o644

# The kernel tells the boot time, from which start times are counted, in whole seconds.
_CLOCK_SLACK_S = 1.0


class PidFileError(Exception):
    """The pid file cannot be had; the text says why and what to do."""


class PidFile:
    """A pid file, held from ``__enter__`` to ``__exit__``.

    Parameters:
      path(str): The file. Its directory must exist.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1
        self._owner = -1

    def __enter__(self) -> PidFile:
        """Take the file and write this process's pid to it. A stale one is replaced.

        Raises:
          PidFileError: It is in use, is no pid file, or cannot be written.
        """
        try:
            while not self._take():
                pass
        except OSError as error:
            raise PidFileError(
                f"The pid file {self.path} cannot be used: {error.strerror}. Give --pid-file a file in an "
                "existing directory that this user may write to."
            ) from error
        return self

    def _take(self) -> bool:
        # False if the file was removed under our hands: try again.
        created = True
        try:
            fd = self._create()
        except FileExistsError:
            created = False
            try:
                fd = self._open_existing()
            except FileNotFoundError:
                return False
        try:
            self._lock(fd, wait=created)
            if not self._is_still_there(fd):
                os.close(fd)
                return False
            if not created:
                self._check_content(fd)
            self._write_pid(fd)
        except BaseException:
            if created:
                os.unlink(self.path)
            os.close(fd)
            raise
        self._fd = fd
        self._owner = os.getpid()
        return True

    def _create(self) -> int:
        return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)

    def _open_existing(self) -> int:
        if stat.S_ISLNK(os.lstat(self.path).st_mode):
            raise PidFileError(f"The pid file {self.path} is a symbolic link. Give --pid-file the file itself.")
        # Without blocking, because it may be a FIFO.
        fd = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise PidFileError(f"The pid file {self.path} is no regular file. Give --pid-file another one.")
        return fd

    def _lock(self, fd: int, *, wait: bool) -> None:
        # A file that we have just created can be locked only by somebody who looks into it
        # before it has content, and lets go of it at once: wait, or both would refuse.
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            pid = _read(fd).decode("ascii", "replace").strip()
            raise PidFileError(
                f"The pid file {self.path} is in use by process {pid}: it is running already. Stop that "
                "process first, or give each its own --pid-file."
            ) from None

    def _is_still_there(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), os.lstat(self.path))
        except FileNotFoundError:
            return False

    def _check_content(self, fd: int) -> None:
        try:
            pid = int(_read(fd))
        except ValueError:
            pid = 0
        if pid <= 0:
            raise PidFileError(
                f"The file {self.path} does not contain a pid, so it may be something else, and was left "
                "alone. Give --pid-file another file, or remove this one."
            )
        if pid != os.getpid() and _is_running_since_before(pid, os.fstat(fd).st_mtime):
            raise PidFileError(
                f"The pid file {self.path} names process {pid}, which is running. Stop that process first; "
                "if it has nothing to do with this file, remove the file."
            )

    def _write_pid(self, fd: int) -> None:
        os.fchmod(fd, _MODE)
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)

    def __exit__(self, *exc_info: object) -> None:
        """Remove the file, if it is still this process's own."""
        if self._owner == os.getpid() and self._is_still_there(self._fd):
            os.unlink(self.path)
        os.close(self._fd)


def _read(fd: int) -> bytes:
    return os.pread(fd, 64, 0)


def _is_running_since_before(pid: int, written_s: float) -> bool:
    # A process that began after the file was written got its pid anew, and a zombie waits for
    # nothing but its parent, which in a container may never look: the file is stale.
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= written_s + _CLOCK_SLACK_S
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True
