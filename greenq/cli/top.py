"""What `greenq top` and `greenq stack` show: jobs as lines of text, and a screen that is drawn anew.

Rows in, lines out. What messages bring is escaped, so that no name of theirs moves the cursor.
"""

from __future__ import annotations

import os
import select
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

Row = Mapping[str, Any]

_NEVER = float("inf")

#: By what rows can be sorted.
SORTS: dict[str, Callable[[Row], Any]] = {
    "age": lambda row: -row["age_ms"],
    "limit": lambda row: _NEVER if row["left_ms"] is None else row["left_ms"],
    "cpu": lambda row: (-(row["cpu"] or 0), -row["age_ms"]),
    "actor": lambda row: (row["actor"], -row["age_ms"]),
    "queue": lambda row: (row["queue"], -row["age_ms"]),
    "id": lambda row: row["message_id"],
    "top-frame": lambda row: (where(row), -row["age_ms"]),
    "worker": lambda row: (row["pid"] or 0, -row["age_ms"]),
}

#: By what they can be grouped.
GROUPS: dict[str, Callable[[Row], str]] = {
    "actor": lambda row: str(row["actor"]),
    "queue": lambda row: str(row["queue"]),
    "top-frame": lambda row: where(row),
    "worker": lambda row: f"{row['worker']} (PID {row['pid']})",
}

_HEAD = ("MESSAGE", "ACTOR", "QUEUE", "AGE", "LEFT", "CPU", "DONE", "WAITING ON")
_WIDEST = (36, 30, 16, 8, 8, 4, 12, 120)

#: Characters that are left of a message's id where a screen is too narrow for all of it.
_SHORTEST_ID = 8


def note_cpu(rows: Sequence[dict[str, Any]], samples: Sequence[Row]) -> None:
    """Note in these rows which part of the time each job had the CPU, from 0 to 1; None where nobody saw.

    Parameters:
      samples(Sequence[Row]): Of each worker, how often it was looked at, and whose job had it how often.
    """
    by_pid = {each["pid"]: each for each in samples if each["looks"]}
    for row in rows:
        seen = by_pid.get(row["pid"])
        if seen is not None:
            row["cpu"] = seen["seen"].get(row["message_id"], 0) / seen["looks"]


def arranged(rows: Sequence[Row], *, sort: str, limit: int | None) -> list[Row]:
    """These rows in this order; the first of them."""
    return sorted(rows, key=SORTS[sort])[:limit]


def grouped(rows: Sequence[Row], by: str, *, limit: int | None) -> list[dict[str, Any]]:
    """How many are alike in this, the most first, with the age of the oldest."""
    counts: Counter[str] = Counter()
    oldest: dict[str, Row] = {}
    for row in rows:
        name = GROUPS[by](row)
        counts[name] += 1
        if name not in oldest or row["age_ms"] > oldest[name]["age_ms"]:
            oldest[name] = row
    return [
        {
            by: name,
            "jobs": count,
            "oldest_ms": oldest[name]["age_ms"],
            "oldest_message_id": oldest[name]["message_id"],
        }
        for name, count in counts.most_common(limit)
    ]


def screen(
    rows: Sequence[Row],
    workers: int,
    problems: Sequence[str],
    sort: str,
    group_by: str | None,
    limit: int | None,
    width: int | None = None,
) -> list[str]:
    """The lines to show; with a width, ids are shortened to leave room for where the jobs are."""
    lines = [f"{_count(len(rows), 'job')} in flight in {_count(workers, 'worker')}"]
    lines += (f"! {escaped(problem)}" for problem in problems)
    if group_by is not None:
        groups = grouped(rows, group_by, limit=limit)
        cells = [
            (str(each["jobs"]), duration(each["oldest_ms"]), each["oldest_message_id"], each[group_by])
            for each in groups
        ]
        return [*lines, "", *_table(("JOBS", "OLDEST", "MESSAGE", group_by.upper()), (8, 8, 36, 140), cells, width)]
    shown = arranged(rows, sort=sort, limit=limit)
    return [*lines, "", *_table(_HEAD, _WIDEST, [_cells(row) for row in shown], width)]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row["message_id"],
        row["actor"],
        row["queue"],
        duration(row["age_ms"]),
        "-" if row["left_ms"] is None else duration(row["left_ms"]),
        "-" if row["cpu"] is None else f"{row['cpu']:.0%}",
        _progress(row),
        where(row),
    )


def _table(
    head: Sequence[str], widest: Sequence[int], rows: Sequence[Sequence[Any]], screen_width: int | None
) -> list[str]:
    cells = [[*head]]
    cells += ([_fitted(escaped(cell), most) for cell, most in zip(row, widest, strict=True)] for row in rows)
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    excess = 0 if screen_width is None else sum(widths) + 2 * (len(widths) - 1) - screen_width
    if excess > 0:
        ids = head.index("MESSAGE")
        widths[ids] = min(widths[ids], max(_SHORTEST_ID, widths[ids] - excess))
        for row in cells:
            row[ids] = _fitted(row[ids], widths[ids])
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _fitted(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _progress(row: Row) -> str:
    done, total = row["done"], row["total"]
    if done is None:
        return "-"
    if total is None or total <= 0:
        return f"{done:g}"
    return f"{done:g}/{total:g} {100 * done / total:.0f}%"


def where(row: Row) -> str:
    """Where a job is: its function, and the end of its file's path with the line."""
    if row["file"] is None:
        return "(not known)"
    return f"{row['function']} {os.sep.join(str(row['file']).split(os.sep)[-2:])}:{row['line']}"


def duration(ms: float) -> str:
    """Milliseconds in a few characters."""
    if ms < 0:
        return "-" + duration(-ms)
    if ms < 1000:
        return f"{ms:.0f}ms"
    if ms < 60_000:
        return f"{ms / 1000:.1f}s"
    minutes, seconds = divmod(int(ms / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s"


def escaped(text: Any) -> str:
    """The same with what a terminal would not print as a character of its own written out."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in str(text)
    )


def stack(jobs: Sequence[Row], frames: Sequence[Row]) -> list[str]:
    """A job and its stack, the innermost line last, as in a traceback."""
    lines = []
    for row in jobs:
        lines.append(
            f"Message {escaped(row['message_id'])} of actor {escaped(row['actor'])}, queue {escaped(row['queue'])}, "
            f"in worker {row['worker']} (PID {row['pid']})"
        )
        left = "no time limit" if row["left_ms"] is None else f"{duration(row['left_ms'])} left"
        lines.append(f"running for {duration(row['age_ms'])}, {left}, done {_progress(row)}")
    for each in frames:
        function, file = escaped(each["function"]), each["file"]
        lines.append(
            f"  {function}" if file is None else f'  File "{escaped(file)}", line {each["line"]}, in {function}'
        )
    return lines


# -- a screen that is drawn anew


def refresh(lines: Callable[[int, int], list[str]], every_s: float) -> None:
    """Draw these lines again and again, until q or Ctrl-C.

    Parameters:
      lines(Callable[[int, int], list[str]]): Called with the width and the height.
      every_s(float): Seconds between two times.
    """
    with ExitStack() as restored:
        reads_keys = sys.stdin.isatty() and _take_keys(restored)
        # The other screen of the terminal, without a cursor, and back at the end. What is wider than it, as lines
        # with characters of two columns may be, is cut off there instead of being wrapped.
        sys.stdout.write("\x1b[?1049h\x1b[?25l\x1b[?7l")
        restored.callback(_write, "\x1b[?7h\x1b[?25h\x1b[?1049l")
        while True:
            width, height = shutil.get_terminal_size()
            drawn = "\x1b[K\r\n".join(lines(width, height))
            _write(f"\x1b[H{drawn}\x1b[K\x1b[J")
            if not reads_keys:
                time.sleep(every_s)  # until the next screen; no key can end the wait here
            elif select.select([sys.stdin], [], [], every_s)[0] and _is_told_to_end():
                return


def _take_keys(restored: ExitStack) -> bool:
    import termios
    import tty

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    restored.callback(termios.tcsetattr, fd, termios.TCSADRAIN, before)
    tty.setcbreak(fd)
    return True


def _is_told_to_end() -> bool:
    return os.read(sys.stdin.fileno(), 64) in (b"q", b"Q", b"")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
