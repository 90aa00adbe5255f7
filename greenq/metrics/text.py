"""Makes one page of the records of all areas, as Prometheus reads it (text format 0.0.4).

Values in, text out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from .catalogue import DURATIONS_MS, OFFSETS, Kind, Labels, Metric, of
from .shared import Record

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_RUNS_AT = OFFSETS["message_duration_milliseconds"]
_RUNS = slice(_RUNS_AT, _RUNS_AT + len(DURATIONS_MS))

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


def page(records: Iterable[Record], *, now_s: float) -> str:
    """The page.

    Parameters:
      records(Iterable[Record]): Of all areas.
      now_s(float): The time on the monotonic clock.
    """
    totals: dict[Labels, dict[tuple[str, ...], list[float]]] = {labels: {} for labels in Labels}
    for record in records:
        rows = totals[record.labels]
        row = rows.get(record.label_values)
        if row is None:
            row = rows[record.label_values] = _nothing(record.labels)
        _add(row, record, now_s)
    lines: list[str] = []
    for labels in Labels:
        rows = totals[labels]
        if rows:
            for metric, offset in of(labels):
                lines += _of_metric(metric, offset, rows)
    return "\n".join(lines) + "\n"


def _nothing(labels: Labels) -> list[float]:
    return [
        value
        for metric, _ in of(labels)
        for value in ((math.nan if metric.kind is Kind.READING else 0.0),) * metric.width
    ]


def _add(row: list[float], record: Record, now_s: float) -> None:
    for metric, offset in of(record.labels):
        kind, value = metric.kind, record.values[offset]
        if kind is Kind.TOTAL:
            row[offset] += value + sum(record.values[_RUNS])
        elif kind is Kind.COUNTER or kind is Kind.HISTOGRAM:
            for position in range(offset, offset + metric.width):
                row[position] += record.values[position]
        elif not record.is_alive or math.isnan(value):
            continue
        elif kind is Kind.GAUGE:
            row[offset] += value
        elif kind is Kind.READING:
            row[offset] = value
        else:
            row[offset] = max(row[offset], (now_s - value) * 1000)


def _of_metric(metric: Metric, offset: int, rows: dict[tuple[str, ...], list[float]]) -> list[str]:
    samples: list[str] = []
    for label_values, row in sorted(rows.items()):
        labels = ",".join(
            f'{name}="{value.translate(_ESCAPES)}"'
            for name, value in zip(metric.labels.value, label_values, strict=True)
        )
        if metric.kind is Kind.HISTOGRAM:
            samples += _of_histogram(metric, labels, row[offset : offset + metric.width])
        elif not math.isnan(row[offset]):
            samples.append(f"{metric.name}{{{labels}}} {_number(row[offset])}")
    if not samples:
        return []
    return [f"# HELP {metric.name} {metric.meaning}", f"# TYPE {metric.name} {metric.type}", *samples]


def _of_histogram(metric: Metric, labels: str, values: Sequence[float]) -> list[str]:
    lines: list[str] = []
    count = 0.0
    for bound, value in zip(metric.bounds, values, strict=False):
        count += value
        lines.append(f'{metric.name}_bucket{{{labels},le="{_number(bound)}"}} {_number(count)}')
    lines.append(f"{metric.name}_sum{{{labels}}} {_number(values[-1])}")
    lines.append(f"{metric.name}_count{{{labels}}} {_number(count)}")
    return lines


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf"
    return str(int(value)) if value == int(value) else repr(value)
