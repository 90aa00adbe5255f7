"""What is measured: a file a figure, each with a function that takes a queue and answers figures by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from peers import Installed, Peer
from running import Sizes
from runs import Figures

from figures import delayed, enqueue, latency, nap_rate, noop_rate, parked, start_up

Measure = Callable[[Peer, Installed, Sizes], Figures]


class Column(NamedTuple):
    """A column of a table.

    Attributes:
      figure(str): The figure's name.
      title(str): With its unit.
      has_ratios(bool): Whether its figures are compared: of what is nearly nothing, ratios say nothing.
    """

    figure: str
    title: str
    has_ratios: bool = True


class Table(NamedTuple):
    """Figures that are shown side by side.

    Attributes:
      title(str): Above it.
      columns(list[Column]): Beside the names of the queues.
    """

    title: str
    columns: list[Column]


MEASURES: dict[str, Measure] = {
    "noop": noop_rate.measure,
    "nap": nap_rate.measure,
    "single": enqueue.measure_single,
    "bulk": enqueue.measure_bulk,
    "latency": latency.measure,
    "parked": parked.measure,
    "start": start_up.measure,
    "delayed": delayed.measure,
}

TABLES = [
    Table(
        "Jobs",
        [Column("noop", "no-op jobs a second"), Column("nap", "jobs of 100 ms, % of the ideal")],
    ),
    Table(
        "Enqueueing",
        [Column("single", "enqueued a second, one by one"), Column("bulk", "enqueued a second, in bulk")],
    ),
    Table(
        "Latency",
        [
            Column("latency_p50", "enqueue to start p50, ms"),
            Column("latency_p99", "enqueue to start p99, ms"),
            Column("start", "command to first job, s"),
        ],
    ),
    Table(
        "Memory and delays",
        [
            Column("parked", "a parked job, KiB"),
            Column("delayed_mib", "worker's growth by 100,000 delayed, MiB", has_ratios=False),
            Column("late_p50", "lateness p50, ms"),
            Column("late_p99", "lateness p99, ms"),
        ],
    ),
]

#: Under which measure a column's figure is.
MEASURE_OF = {
    "latency_p50": "latency",
    "latency_p99": "latency",
    "delayed_mib": "delayed",
    "late_p50": "delayed",
    "late_p99": "delayed",
}
