"""The scripts, one for each verb: what the server does in one step.

What a script takes and answers, and why it is one step, is said at the top of its file in
scripts/.
"""

from __future__ import annotations

import hashlib
from importlib import resources


class Script:
    """A script as it is sent.

    Attributes:
      name(str): The verb.
      text(bytes): Its source, with what all scripts share in front.
      sha(str): The name under which the server knows it once it has run it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = _read("shared") + b"\n" + _read(name)
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()

    def __repr__(self) -> str:
        return f"Script({self.name!r})"


def _read(name: str) -> bytes:
    return (resources.files(__package__) / "scripts" / f"{name}.lua").read_bytes()


ENQUEUE = Script("enqueue")
FETCH = Script("fetch")
SETTLE = Script("settle")
RENEW = Script("renew")
HAND_OVER = Script("hand_over")
HELD = Script("held")
TAKE_BACK = Script("take_back")
FLUSH = Script("flush")
COUNT = Script("count")
OLDEST = Script("oldest")
PURGE = Script("purge")
LOOK = Script("look")
SEND_BACK = Script("send_back")
DELETE_DEAD = Script("delete_dead")
