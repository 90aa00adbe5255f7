"""Every metric there is: its name, what it means, and where in a record its values stand.

A record holds the values of everything that has the same labels: of an actor on a queue, of a
queue, or of a worker. docs/metrics.md is for whoever reads the metrics, and has the same table.
"""

from __future__ import annotations

import enum
import math
from typing import NamedTuple

#: Upper bounds of the histograms' buckets, in milliseconds.
DURATIONS_MS = (
    *(5, 10, 25, 50, 75, 100, 250, 500, 750, 1_000, 2_500, 5_000, 7_500, 10_000),
    *(30_000, 60_000, 600_000, 900_000, math.inf),
)
#: Waiting may take longer than any job may.
WAITS_MS = (*DURATIONS_MS[:-1], 3_600_000, 21_600_000, 86_400_000, math.inf)
LAGS_MS = (1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, math.inf)


class Kind(enum.Enum):
    """How the values of several workers become one, and what Prometheus calls the type."""

    COUNTER = "counter"  # added up, of those that have died as well
    TOTAL = "total"  # a counter, to which belongs how many runs the record has a duration of
    HISTOGRAM = "histogram"  # the same for each bucket, and for the sum of what was observed
    GAUGE = "gauge"  # added up over the living
    READING = "reading"  # a gauge of one worker, which looks for all of them; absent if nobody does
    OVERDUE = "overdue"  # a gauge made of a monotonic time in seconds: the milliseconds since then


class Labels(enum.Enum):
    """What a record is of."""

    ACTOR = ("queue_name", "actor_name")
    QUEUE = ("queue_name",)
    WORKER = ("worker",)


class Metric(NamedTuple):
    """One metric.

    Attributes:
      name(str): As it is served.
      kind(Kind): How it behaves.
      labels(Labels): Of which record it is.
      unit(str): Of its values.
      meaning(str): One sentence, for whoever reads it.
      bounds(tuple[float, ...]): Of a histogram's buckets.
    """

    name: str
    kind: Kind
    labels: Labels
    unit: str
    meaning: str
    bounds: tuple[float, ...] = ()

    @property
    def width(self) -> int:
        """How many values it has: one, or of a histogram the buckets and the sum."""
        return len(self.bounds) + 1 if self.kind is Kind.HISTOGRAM else 1

    @property
    def type(self) -> str:
        """What Prometheus calls it."""
        if self.kind in (Kind.COUNTER, Kind.TOTAL):
            return "counter"
        return "histogram" if self.kind is Kind.HISTOGRAM else "gauge"


_C, _H, _G, _R = Kind.COUNTER, Kind.HISTOGRAM, Kind.GAUGE, Kind.READING
_ACTOR, _QUEUE, _WORKER = Labels.ACTOR, Labels.QUEUE, Labels.WORKER

METRICS: tuple[Metric, ...] = (
    # Its value in a record is the skipped ones: that of the others is in the histogram, which
    # saves every job an addition.
    Metric(
        *("greenq_messages_total", Kind.TOTAL, _ACTOR, "messages"),
        "Runs that have ended, and messages that were skipped.",
    ),
    Metric("greenq_message_errors_total", _C, _ACTOR, "messages", "Runs that ended with an exception."),
    Metric("greenq_message_retries_total", _C, _ACTOR, "messages", "Retries that were asked for."),
    Metric("greenq_message_rejects_total", _C, _ACTOR, "messages", "Messages that went to the dead letters."),
    Metric(
        *("greenq_message_redeliveries_total", _C, _ACTOR, "messages"),
        "Runs of messages that had been taken back from a lost worker.",
    ),
    Metric("greenq_messages_inprogress", _G, _ACTOR, "messages", "Messages that are running."),
    Metric(
        *("greenq_delayed_messages_inprogress", _G, _ACTOR, "messages"),
        "Delayed messages that are held in a worker's memory.",
    ),
    Metric(
        *("greenq_message_duration_milliseconds", _H, _ACTOR, "milliseconds"),
        "How long messages ran.",
        DURATIONS_MS,
    ),
    Metric(
        *("greenq_message_wait_milliseconds", _H, _ACTOR, "milliseconds"),
        "How long messages waited to be run, from when they were made, or fell due, to the start.",
        WAITS_MS,
    ),
    Metric(
        *("greenq_message_blocks_total", _C, _ACTOR, "stretches"),
        "Times that a job kept all others of its process waiting for longer than --block-warn.",
    ),
    Metric(
        *("greenq_message_blocked_milliseconds_total", _C, _ACTOR, "milliseconds"),
        "For how long jobs did so, in all.",
    ),
    Metric("greenq_queue_ready_messages", _R, _QUEUE, "messages", "Messages that wait for a worker."),
    Metric("greenq_queue_reserved_messages", _R, _QUEUE, "messages", "Messages in the hands of workers, of all hosts."),
    Metric("greenq_queue_delayed_messages", _R, _QUEUE, "messages", "Messages that are not due yet."),
    Metric("greenq_queue_dead_letters", _R, _QUEUE, "messages", "Messages that have failed for good, and are kept."),
    Metric(
        *("greenq_queue_oldest_message_age_milliseconds", _R, _QUEUE, "milliseconds"),
        "How long the first of the ready messages has waited; 0 if none waits.",
    ),
    Metric(
        *("greenq_undecodable_messages_total", _C, _QUEUE, "messages"),
        "Bytes that were no message, and went to the dead letters.",
    ),
    Metric("greenq_worker_starts_total", _C, _WORKER, "starts", "Starts of the worker process."),
    Metric("greenq_worker_up", _G, _WORKER, "processes", "1 while the worker process lives, 0 while it does not."),
    Metric("greenq_slots_used", _G, _WORKER, "slots", "Slots with a message."),
    Metric("greenq_slots_free", _G, _WORKER, "slots", "Slots that a message could be fetched for."),
    Metric("greenq_broker_away", _G, _WORKER, "processes", "1 while the worker cannot reach the broker."),
    Metric(
        *("greenq_broker_reconnects_total", _C, _WORKER, "reconnects"),
        "Times that the broker was back after it had been away.",
    ),
    Metric(
        *("greenq_hub_lag_milliseconds", _H, _WORKER, "milliseconds"),
        "How late greenlets had their turn, looked at ten times a second.",
        LAGS_MS,
    ),
    Metric(
        *("greenq_hub_stalled_milliseconds", Kind.OVERDUE, _WORKER, "milliseconds"),
        "For how long no greenlet has had its turn now; 0 if all is well.",
    ),
)


def of(labels: Labels) -> list[tuple[Metric, int]]:
    """The metrics of a record with these labels, and where the values of each begin."""
    found: list[tuple[Metric, int]] = []
    offset = 0
    for metric in METRICS:
        if metric.labels is labels:
            found.append((metric, offset))
            offset += metric.width
    return found


#: Where the values of each metric begin in its record, by name without "greenq_".
OFFSETS: dict[str, int] = {
    metric.name.removeprefix("greenq_"): offset for labels in Labels for metric, offset in of(labels)
}


def fresh(labels: Labels) -> list[float]:
    """The values of a new record."""
    return [value for metric, _ in of(labels) for value in (_fresh(metric),) * metric.width]


def _fresh(metric: Metric) -> float:
    return math.nan if metric.kind in (Kind.READING, Kind.OVERDUE) else 0.0


def gauges(labels: Labels) -> list[tuple[int, float]]:
    """Where the values stand that a process takes with it when it dies, and what they are then."""
    return [(offset, _fresh(metric)) for metric, offset in of(labels) if metric.type == "gauge"]
