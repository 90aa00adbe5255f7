"""Tells the supervisor of changes of the source: what `greenq-worker --watch` runs beside the workers.

A fork function, see worker/fork.py. What tells it when to look is the package watchfiles, or a
clock; what it sees by looking is what counts, so a file that was only opened or touched by a
permission is no change, and none is missed that falls between two watchers.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase

from .logging import get_logger
from .worker import fork

#: Between two looks without watchfiles, and until a change is taken for complete: editors write
#: a file in several steps, and a checkout writes many.
_POLL_EVERY_S = 0.5
_SETTLED_AFTER_S = 0.1

#: How soon watchfiles tells that it has begun, and how long it gathers what changes, at most.
_WATCHFILES_TELLS_EVERY_MS = 200
_WATCHFILES_GATHERS_MS = 400

#: What is always looked at, and folders that never are; hidden ones are not, nor virtual environments.
ALWAYS = "*.py"
_NEVER = frozenset({"__pycache__", "node_modules"})

#: When a file was written, its size and its inode: different if it has changed.
State = tuple[int, int, int]


class Files:
    """The files below a directory that are watched.

    Parameters:
      directory(str): The directory.
      include(Sequence[str]): Patterns of files beside those of Python: of a name, or of a path below
        the directory if there is a / in it.
      exclude(Sequence[str]): Patterns of files and folders that are left out.
    """

    def __init__(self, directory: str, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        self.directory = directory
        self._include = [_anywhere(pattern) for pattern in (ALWAYS, *include)]
        self._exclude = [_anywhere(pattern) for pattern in exclude]

    def look(self) -> dict[str, State]:
        """The states of all of them, by their paths below the directory."""
        states: dict[str, State] = {}
        for folder, folders, names in os.walk(self.directory):
            below = os.path.relpath(folder, self.directory)
            folders[:] = [name for name in folders if self._is_entered(_joined(below, name))]
            for name in names:
                path = _joined(below, name)
                if _matches(path, self._include) and not _matches(path, self._exclude):
                    try:
                        status = os.stat(os.path.join(folder, name))
                    except OSError:
                        continue  # it is gone again, or a link that leads nowhere
                    states[path] = (status.st_mtime_ns, status.st_size, status.st_ino)
        return states

    def _is_entered(self, path: str) -> bool:
        name = os.path.basename(path)
        if name.startswith(".") or name in _NEVER or _matches(path, self._exclude):
            return False
        return not os.path.exists(os.path.join(self.directory, path, "pyvenv.cfg"))

    def may_concern(self, path: str) -> bool:
        """Whether news of this path are a reason to look."""
        # A folder that was moved here brings files of which nothing is told.
        return not os.path.isfile(path) or _matches(os.path.relpath(path, self.directory), self._include)


def _joined(folder: str, name: str) -> str:
    return name if folder == "." else f"{folder}/{name}"


def _anywhere(pattern: str) -> str:
    return pattern.removeprefix("./").removeprefix("**/")


def _matches(path: str, patterns: Sequence[str]) -> bool:
    name = path.rpartition("/")[2]
    return any(fnmatchcase(path, pattern) or fnmatchcase(name, pattern) for pattern in patterns)


def changes(
    files: Files, occasions: Iterator[None], settle: Callable[[float], None] = time.sleep
) -> Iterator[list[str]]:
    """The paths of each change, once it is complete; first an empty one, when none is missed any more.

    Parameters:
      files(Files): What is watched.
      occasions(Iterator[None]): When to look. The first one is when all that follow will come.
      settle(Callable[[float], None]): Waits for so many seconds.
    """
    seen = files.look()
    for number, _ in enumerate(occasions):
        if number == 0:
            yield []
        now = files.look()
        if now == seen:
            continue
        while True:
            settle(_SETTLED_AFTER_S)
            later = files.look()
            if later == now:
                break
            now = later
        changed = sorted(path for path in seen.keys() | now.keys() if seen.get(path) != now.get(path))
        seen = now
        if changed:
            yield changed


def by_clock() -> Iterator[None]:
    """Look every now and then."""
    while True:
        yield
        time.sleep(_POLL_EVERY_S)  # a file system tells nobody


def by_watchfiles(files: Files) -> Iterator[None]:
    """Look when watchfiles says so."""
    import watchfiles

    if logging.getLogger("watchfiles").level == logging.NOTSET:
        logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it tells of each change, also of other files
    has_begun = False
    news = watchfiles.watch(
        files.directory,
        watch_filter=lambda change, path: files.may_concern(path),
        debounce=_WATCHFILES_GATHERS_MS,
        rust_timeout=_WATCHFILES_TELLS_EVERY_MS,
        yield_on_timeout=True,
        ignore_permission_denied=True,
    )
    try:
        for told in news:
            if told or not has_begun:
                has_begun = True
                yield
    except KeyboardInterrupt:
        return  # so it says that a handler raised something, that of TERM: INT raises nothing here


def watch() -> None:
    """Report each change to the supervisor until the process is told to end."""
    options = fork.options()
    logger = get_logger(__name__)
    files = Files(options["watch"], options["watch_include"], options["watch_exclude"])
    occasions = by_clock() if options["watch_use_polling"] else by_watchfiles(files)
    for changed in changes(files, occasions):
        if changed:
            fork.report(event="changed", what=told(changed))
        else:
            logger.info("Watching %s for changes.", os.path.abspath(files.directory))
            if options["is_successor"]:
                # What changed after the end of the one before was seen by nobody.
                fork.report(event="changed", what="something, perhaps, while nobody watched")


def told(changed: Sequence[str]) -> str:
    """These paths in a few words."""
    more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
    return f"{changed[0]:.200}{more}"
