"""How a worker died, and of what, as far as that can be known from outside.

Reads what is left of it; tells the log, and the worker that takes back what it held. Which
message is evidence for what is decided here, what follows from it by the broker.
"""

from __future__ import annotations

from dataclasses import dataclass

from .child import Child
from .signals import describe_exit

_MIB = 1024 * 1024


@dataclass(frozen=True)
class Death:
    """One.

    Attributes:
      cause(str): How it died and with how much memory: "was killed by SIGSEGV; 512 MiB".
      on_cpu(str): The id of the message whose job had the CPU; empty if none had.
      alone(str): The id of the message that ran with nothing beside it; empty if none did.
      charge(tuple[str, ...]): The ids of the messages for which there is evidence that they were its death.
      words(str): Its last ones, of many lines; empty if there are none.
      was_stuck(bool): Whether the supervisor killed it because it was stuck.
    """

    cause: str
    on_cpu: str
    alone: str
    charge: tuple[str, ...]
    words: str
    was_stuck: bool

    def __str__(self) -> str:
        had = f"; message {self.on_cpu} had the CPU" if self.on_cpu else ""
        return self.cause + had + (f"; message {self.alone} ran alone" if self.alone else "")


def death_of(child: Child, returncode: int) -> Death:
    """The death of a worker that was reaped, with this code, as subprocess has it."""
    cause = describe_exit(returncode)
    if child.stuck is not None:
        cause += f", because it was stuck: {child.stuck.reason}"
    if child.memory is not None:
        cause += f"; {child.memory // _MIB} MiB"
    on_cpu = child.page.message_on_cpu if child.page is not None else ""
    charge = _evidence(child, returncode, on_cpu)
    return Death(cause, on_cpu, child.alone or "", charge, _words(child, returncode), child.stuck is not None)


def _evidence(child: Child, returncode: int, on_cpu: str) -> tuple[str, ...]:
    if child.stuck is not None and child.stuck.message_id:
        return (child.stuck.message_id,)
    if child.stuck is None and child.stopping and (child.killed or returncode >= 0):
        return ()  # its time to stop was over: that is nobody's fault
    return tuple(dict.fromkeys(each for each in (on_cpu, child.alone) if each))


def _words(child: Child, returncode: int) -> str:
    # A signal that it did not die of, or died of later, is no news.
    if child.words is None or (returncode >= 0 and child.stuck is None):
        return ""
    return child.words.read()
