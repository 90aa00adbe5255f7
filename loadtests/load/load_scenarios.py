"""The scenarios: how many users there are at which time, and what befalls those who work for them.

Knows neither locust, which makes shapes of them (locustfile.py), nor how something befalls (drive.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Scenario(NamedTuple):
    """One of them.

    Attributes:
      title(str): What it is, for a reader.
      crowd(Callable): The users at a share of the time (0 to 1), as a share of all of them.
      has_sleepers(bool): Whether every tenth user sends jobs that sleep for long.
      befalls(str): What happens in the middle: "reload", "kill", "slow", or nothing.
    """

    title: str
    crowd: Callable[[float], float]
    has_sleepers: bool = False
    befalls: str = ""


#: A load where nobody says otherwise: how long, how many users, and how many jobs each of them sends a second.
SECONDS, USERS, RATE = 60, 100, 2
#: How long a job waits, and how long a sleeper's.
WORK_MS, SLEEP_MS = 20, 20_000
#: The users between bursts and in one, as shares of all.
CALM, CROWDED = 0.2, 2.0
#: When bursts begin and end, in shares of the time.
BURSTS = [(0.2, 0.3), (0.45, 0.55), (0.7, 0.8)]
#: From when to when the broker is slow.
SLOW = (1 / 3, 2 / 3)


def all_of_them(share: float) -> float:
    """As many users all the time."""
    return 1.0


def in_bursts(share: float) -> float:
    """A fifth of the users, and three times, for a tenth of the time each, twice all of them."""
    return CROWDED if any(begin <= share < end for begin, end in BURSTS) else CALM


SCENARIOS = {
    "steady": Scenario("Steady load", all_of_them),
    "burst": Scenario("Three bursts", in_bursts),
    "sleepers": Scenario("Short jobs beside long sleepers", all_of_them, has_sleepers=True),
    "slow-broker": Scenario("A slow broker", all_of_them, befalls="slow"),
    "deploy": Scenario("A deploy under load", all_of_them, befalls="reload"),
    "kill": Scenario("A worker killed under load", all_of_them, befalls="kill"),
}
