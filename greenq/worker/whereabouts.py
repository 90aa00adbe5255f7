"""Which line of a stack to tell: the application's own, of all that a library and Python have below it."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Sequence
from functools import lru_cache

from ..runtime import Place

_GREENQ = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_PATHS = sysconfig.get_paths()
_LIBRARIES = tuple({_PATHS[name] + os.sep for name in ("purelib", "platlib") if name in _PATHS})
_PYTHON = tuple({_PATHS[name] + os.sep for name in ("stdlib", "platstdlib") if name in _PATHS})
#: The folders of packages, also where an interpreter knows nothing of them.
_PACKAGES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
#: Where an application's greenlets wait, but never itself.
_PLUMBING = f"{os.sep}gevent{os.sep}"


def whereabouts(places: Sequence[Place]) -> str:
    """Where a stack is, in words.

    Parameters:
      places(Sequence[Place]): The innermost first.
    """
    if not places:
        return "an unknown place"
    own = next((place for place in places if is_users(place.filename)), None)
    # An application may be installed like a library.
    library = next((place for place in places if is_of_a_library(place.filename)), None)
    return str(own or library or places[0])


@lru_cache(maxsize=4096)
def is_users(file: str) -> bool:
    """Whether code of this file is neither greenq's, nor Python's, nor of an installed package."""
    return not _is_installed(file) and not file.startswith(("<frozen", _GREENQ, *_PYTHON))


@lru_cache(maxsize=4096)
def is_of_a_library(file: str) -> bool:
    """Whether code of this file is of an installed package; not of greenq, nor of gevent, where all greenlets wait."""
    return _is_installed(file) and _PLUMBING not in file and not file.startswith(_GREENQ)


def _is_installed(file: str) -> bool:
    return file.startswith(_LIBRARIES) or any(packages in file for packages in _PACKAGES)
