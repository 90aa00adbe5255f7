"""Which line of a stack to tell: the application's own, of all that a library and Python have below it."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Sequence

from ..runtime import Place

_GREENQ = os.path.dirname(os.path.dirname(__file__)) + os.sep
_PATHS = sysconfig.get_paths()
_LIBRARIES = tuple({_PATHS[name] + os.sep for name in ("purelib", "platlib")})
_PYTHON = tuple({_PATHS[name] + os.sep for name in ("stdlib", "platstdlib")})
#: Where an application's greenlets wait, but never itself.
_PLUMBING = tuple(os.path.join(path, "gevent") + os.sep for path in _LIBRARIES)


def whereabouts(places: Sequence[Place]) -> str:
    """Where a stack is, in words.

    Parameters:
      places(Sequence[Place]): The innermost first.
    """
    if not places:
        return "an unknown place"
    own = next(filter(_is_own, places), None)
    # An application may be installed like a library.
    return str(own or next(filter(_is_of_a_library, places), None) or places[0])


def _is_own(place: Place) -> bool:
    return not place.filename.startswith(("<", _GREENQ, *_LIBRARIES, *_PYTHON))


def _is_of_a_library(place: Place) -> bool:
    return place.filename.startswith(_LIBRARIES) and not place.filename.startswith((_GREENQ, *_PLUMBING))
