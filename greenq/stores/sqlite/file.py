"""Opens a file, and refuses what is not safe to use as one.

Every refusal says what is wrong, with which path, and what to do next. Knows which tables a
file of some layout has and in which version, not what they are for.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import weakref
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from ...errors import BrokerUnusable, ConnectionFailed, StorageError
from ...runtime import current
from .contention import while_locked

#: STRICT tables came with it.
OLDEST_SQLITE = (3, 37, 0)

# What locks and shared memory do not work on, by the kernel's names.
# fmt: off
_NETWORK_FILE_SYSTEMS = frozenset({
    "9p", "afs", "acfs", "beegfs", "ceph", "cifs", "coda", "fuse.ceph", "fuse.cephfs", "fuse.davfs",
    "fuse.glusterfs", "fuse.juicefs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "gfs2", "glusterfs", "gpfs",
    "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "prl_fs", "smb", "smb2", "smb3", "smbfs",
    "vboxsf",
})
# fmt: on


class Layout(NamedTuple):
    """What is in a file."""

    application_id: int
    """Says in the file's header whose it is."""
    version: int
    tables: frozenset[str]
    steps: Mapping[int, str]
    """For each version of such a file, 0 for an empty one, the statements that bring it to this one."""


class File:
    """The file at a path, once it has been opened: never another one at the same path.

    Parameters:
      path(str): Absolute.
      synchronous(str): "NORMAL" or "FULL".
      layout(Layout): What is in it, or is made in it if it is new.

    Attributes:
      inside(Any): A native lock that is held by whoever is inside SQLite with this file.
    """

    def __init__(self, path: str, synchronous: str, layout: Layout) -> None:
        self.path = path
        self._layout = layout
        self._synchronous = synchronous
        self._identity: tuple[int, int] | None = None
        self.inside = current().native_lock()
        _files.add(self)

    def open(self) -> sqlite3.Connection:
        """Open the file; the first time, create it if it does not exist.

        The connection may only be used by the thread that asked for it.

        Raises:
          BrokerUnusable: It cannot be used; says why.
          ConnectionFailed: It cannot be used now; says why.
          StorageError: It is no longer the file that was opened before.
        """
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise BrokerUnusable(
                f"SQLite {sqlite3.sqlite_version} is too old for {self.path}: greenq needs "
                f"{'.'.join(map(str, OLDEST_SQLITE))} or later. Use a newer Python or system library."
            )
        if self._identity is None:
            self._make_sure_it_exists()
        else:
            self.check()
        identity = _identity_of(self.path)
        connection = self._connect()
        try:
            while_locked(self.path, self.inside, lambda: self._prepare(connection))
            if _identity_of(self.path) != identity:
                raise ConnectionFailed(f"{self.path} was replaced while it was opened. Try again.")
        except sqlite3.Error as error:
            self.close(connection)
            raise _failed(error, self.path) from error
        except BaseException:
            self.close(connection)
            raise
        self._identity = identity
        return connection

    def close(self, connection: sqlite3.Connection) -> None:
        """Close a connection that ``open`` made."""
        with self.inside:
            connection.close()

    def check(self) -> None:
        """Make sure that the path still names the file that was opened.

        Raises:
          StorageError: It does not. Messages written now would go to a file without a name.
        """
        found = _identity_of(self.path)
        if found != self._identity:
            raise StorageError(
                f"{self.path} was {'deleted' if found is None else 'replaced by another file'} while it was in use, so "
                "nothing was read or written. Put the file back, or restart the processes that use it to go on with "
                + ("a new one." if found is None else "the one that is there now.")
            )

    # -- before it is opened

    def _make_sure_it_exists(self) -> None:
        folder = os.path.dirname(self.path)
        if not os.path.isdir(folder):
            raise BrokerUnusable(
                f"{self.path} cannot be created because {folder} is not a directory. Create it, or choose another path."
            )
        _refuse_network_file_system(self.path, folder)
        try:
            # Exclusive, so that of two processes one creates it, and nobody follows a link.
            created = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            self._refuse_what_is_no_file()
        except OSError as error:
            raise BrokerUnusable(
                f"{self.path} cannot be created: {error.strerror}. Make {folder} writable for this process, "
                "or choose another path."
            ) from error
        else:
            os.close(created)

    def _refuse_what_is_no_file(self) -> None:
        # Looked at, never opened: closing it again would drop the locks that another
        # connection of this process has on it.
        mode = os.lstat(self.path).st_mode
        if stat.S_ISLNK(mode):
            raise BrokerUnusable(
                f"{self.path} is a symbolic link, and links are not followed. Give the path that it points to."
            )
        if stat.S_ISDIR(mode):
            raise BrokerUnusable(f"{self.path} is a directory. Give the path of a file in it.")
        if not stat.S_ISREG(mode):
            raise BrokerUnusable(f"{self.path} is not a regular file. Give the path of one, or of none.")
        if not os.access(self.path, os.R_OK | os.W_OK):
            raise BrokerUnusable(
                f"{self.path} cannot be read and written by this process. Change its owner or its mode, or run as "
                "the user it belongs to."
            )

    # -- opening

    def _connect(self) -> sqlite3.Connection:
        # mode=rw: SQLite itself never creates the file, so it cannot come back empty.
        # The deadlines are ours, see contention.py.
        try:
            with self.inside:
                return sqlite3.connect(
                    f"file:{quote(self.path)}?mode=rw",
                    uri=True,
                    isolation_level=None,
                    timeout=0,
                    check_same_thread=False,
                    cached_statements=256,
                )
        except sqlite3.Error as error:
            raise _failed(error, self.path) from error

    def _prepare(self, connection: sqlite3.Connection) -> None:
        # Each of these may find the file locked by a process that is creating it.
        connection.execute(f"PRAGMA synchronous={self._synchronous}")
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute("PRAGMA cache_size=-16000")  # KiB
        # In one transaction: read one by one, the marks of a file that is just being made
        # would look like somebody else's.
        connection.execute("BEGIN")
        try:
            version = self._version(connection)
        finally:
            connection.execute("ROLLBACK")
        # Cannot be done in a transaction. Until the tables are there, others may do it, too.
        (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        if mode != "wal":
            raise BrokerUnusable(
                f"{self.path} cannot be used with a write-ahead log, only in mode {mode!r}: its file system has no "
                "shared memory. Choose a path on a local disk."
            )
        connection.execute("PRAGMA journal_size_limit=67108864").fetchone()
        # Pages. Copying the log into the file four times less often than by default took 5 %
        # off the time of a claimed and settled message.
        connection.execute("PRAGMA wal_autocheckpoint=4000").fetchone()
        if version == self._layout.version:
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            version = self._version(connection)
            if version != self._layout.version:
                for statement in _statements(self._layout.steps[version]):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id={self._layout.application_id}")
                connection.execute(f"PRAGMA user_version={self._layout.version}")
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise

    def _version(self, connection: sqlite3.Connection) -> int:
        """The version of the file, 0 while it is empty; refuses one that is somebody else's."""
        (owner,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if owner == 0 and version == 0 and not tables:
            return 0
        layout = self._layout
        if owner != layout.application_id and owner >> 8 == layout.application_id >> 8:
            raise BrokerUnusable(
                f"{self.path} is greenq's, but for something else: a broker keeps its messages in one file, results "
                "and rate limits are in another. It was left as it is. Give another path."
            )
        if owner != layout.application_id or not layout.tables <= tables:
            raise BrokerUnusable(
                f"{self.path} is a database of another program; it was left as it is. Give a path of its own to greenq."
            )
        version = int(version)
        if version != layout.version and not (version and version in layout.steps):
            raise BrokerUnusable(
                f"{self.path} was made by {'a newer' if version > layout.version else 'another'} version of greenq "
                f"(its format is {version}, this version knows {layout.version}); it was left as it is. Run that "
                "version, or give another path."
            )
        return version


# SQLite has locks of its own. A child that was forked while another thread held one of them
# would wait for it forever, so a fork waits until nobody is inside.
_files: weakref.WeakSet[File] = weakref.WeakSet()
_held_for_a_fork: list[Any] = []
_LONGEST_WAIT_BEFORE_A_FORK_S = 1.0


def _before_a_fork() -> None:
    for file in list(_files):
        if file.inside.acquire(True, _LONGEST_WAIT_BEFORE_A_FORK_S):
            _held_for_a_fork.append(file.inside)


def _after_a_fork() -> None:
    while _held_for_a_fork:
        _held_for_a_fork.pop().release()


os.register_at_fork(before=_before_a_fork, after_in_parent=_after_a_fork, after_in_child=_after_a_fork)


#: What SQLite says of a file that is as wrong a moment later.
_LASTING = ("malformed", "not a database", "readonly", "unable to open")


def _failed(error: sqlite3.Error, path: str) -> ConnectionFailed:
    is_lasting = any(words in str(error) for words in _LASTING)
    return (BrokerUnusable if is_lasting else ConnectionFailed)(explain(error, path))


def explain(error: BaseException, path: str) -> str:
    """What SQLite's complaint about this file means, and what to do next."""
    text = str(error)
    if "is full" in text:
        return (
            f"There is no space left for {path}, so nothing was written. Free some on its file system, then try again."
        )
    if "malformed" in text:
        return (
            f"{path} is damaged ({text}). Stop all processes that use it, keep a copy of it and of the files beside "
            f"it, and save what can be read with: sqlite3 {path} .recover"
        )
    if "not a database" in text:
        return f"{path} is not a database; it was left as it is. Give a path of its own to greenq."
    if "readonly" in text:
        return (
            f"{path} cannot be written ({text}), so nothing was. Make the file and its directory writable for this "
            "process; the files beside it (-wal, -shm) too."
        )
    if "unable to open" in text:
        return (
            f"{path} cannot be opened ({text}). Check that it exists, and that this process may write it, the files "
            "beside it (-wal, -shm) and their directory."
        )
    return f"{path} could not be read or written: {text}. Check its file system and the system's log."


def _statements(script: str) -> list[str]:
    statements = [""]
    for part in "\n".join(line.split("--")[0] for line in script.splitlines()).split(";"):
        statements[-1] += part + ";"
        # A trigger has semicolons inside.
        if sqlite3.complete_statement(statements[-1]):
            statements.append("")
    return [statement.strip() for statement in statements if statement.strip(" \n;")]


def _identity_of(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _refuse_network_file_system(path: str, folder: str) -> None:
    kind = file_system_of(folder)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise BrokerUnusable(
            f"{path} is on a network file system ({kind}), where SQLite's locks do not hold and messages would be "
            "lost. Choose a path on a local disk."
        )


def file_system_of(folder: str, mounts_file: str = "/proc/self/mountinfo") -> str | None:
    """The kernel's name for the kind of file system a directory is on; None if it does not tell."""
    folder = os.path.realpath(folder)
    found, kind = "", None
    try:
        with open(mounts_file, encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                # 36 35 98:0 / /mnt/data rw,noatime shared:1 - ext4 /dev/sda1 rw
                fields = line.split()
                mount_point = _without_escapes(fields[4])
                is_above = folder == mount_point or folder.startswith(mount_point.rstrip("/") + "/")
                if is_above and len(mount_point) >= len(found):
                    found, kind = mount_point, fields[fields.index("-", 5) + 1]
    except (OSError, ValueError, IndexError):
        return None
    return kind


def _without_escapes(mount_point: str) -> str:
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        mount_point = mount_point.replace(escape, character)
    return mount_point
