"""What `greenq top` and `greenq stack` show of jobs."""

from __future__ import annotations

import pytest

from greenq.cli import top


def job(message_id="1", **given):
    return {
        "message_id": message_id,
        "actor": "resize",
        "queue": "images",
        "age_ms": 1500,
        "left_ms": None,
        "file": "/srv/shop/tasks.py",
        "line": 7,
        "function": "resize",
        "done": None,
        "total": None,
        "worker": 1,
        "pid": 12,
        "cpu": None,
        **given,
    }


def test_workers_that_have_nothing_to_do_are_told_as_well():
    assert top.screen([], 2, [], "age", None, None)[0] == "0 jobs in flight in 2 workers"


def test_a_job_is_a_line_with_where_it_waits():
    lines = top.screen([job(left_ms=59_000, done=3, total=10)], 1, [], "age", None, None)

    assert lines[0] == "1 job in flight in 1 worker"
    assert lines[-1].split() == [
        "1",
        "resize",
        "images",
        "1.5s",
        "59.0s",
        "-",
        "3/10",
        "30%",
        "resize",
        "shop/tasks.py:7",
    ]


@pytest.mark.parametrize(
    ("sort", "order"),
    [("age", "bac"), ("limit", "cab"), ("actor", "cba"), ("id", "abc"), ("worker", "cab")],
)
def test_jobs_are_sorted(sort, order):
    rows = [
        job("a", age_ms=20, left_ms=10, actor="z", pid=2),
        job("b", age_ms=30, left_ms=None, actor="y", pid=3),
        job("c", age_ms=10, left_ms=-5, actor="x", pid=1),
    ]

    assert "".join(row["message_id"] for row in top.arranged(rows, sort=sort, limit=None)) == order
    assert len(top.arranged(rows, sort=sort, limit=2)) == 2


def test_jobs_that_wait_in_the_same_place_are_counted_together_with_the_oldest():
    rows = [job("a", age_ms=5), job("b", age_ms=9), job("c", line=8)]

    groups = top.grouped(rows, "top-frame", limit=None)

    assert [(each["top-frame"], each["jobs"], each["oldest_message_id"]) for each in groups] == [
        ("resize shop/tasks.py:7", 2, "b"),
        ("resize shop/tasks.py:8", 1, "c"),
    ]
    assert top.screen(rows, 1, [], "age", "top-frame", 1)[-1].split()[0] == "2"


def test_nothing_that_a_message_brings_moves_the_cursor():
    evil = "\x1b[2J\r\n\x9b1A\u202egnp.exe\u2028"
    row = job(evil, actor=evil, queue=evil, function=evil, file=evil)

    shown = [
        *top.screen([row], 1, [evil], "age", None, None),
        *top.screen([row], 1, [], "age", "actor", None),
        *top.stack([row], [{"file": evil, "line": 1, "function": evil}]),
    ]

    assert [line for line in shown if not line.isprintable()] == []
    assert r"\x1b[2J\r\n\x9b1A\u202egnp" in shown[-1]


def test_long_names_leave_room_for_the_others():
    (line,) = top.screen([job("x" * 300, actor="y" * 300)], 1, [], "age", None, None)[3:]

    assert len(line) < 36 + 30 + 100
    assert line.endswith("shop/tasks.py:7")


@pytest.mark.parametrize("group_by", [None, "top-frame"])
def test_on_a_narrow_screen_ids_leave_room_for_where_jobs_wait(group_by):
    rows = [job("e6765102-1002-4fae-8172-bd784b4a513a"), job("77b0ddc8-d8c8-4c33-8f9e-0d8c3f2a7f11")]

    wide = top.screen(rows, 1, [], "age", group_by, None, 200)
    narrow = top.screen(rows, 1, [], "age", group_by, None, 80)
    narrowest = top.screen(rows, 1, [], "age", group_by, None, 20)

    assert wide == top.screen(rows, 1, [], "age", group_by, None)
    assert narrow[-1].endswith("resize shop/tasks.py:7")
    assert all(len(line) <= 80 for line in narrow)
    assert "77b0ddc…" in narrowest[-1] or "e676510…" in narrowest[-1]


def test_the_share_of_the_cpu_is_told_of_workers_that_were_looked_at():
    rows = [job("a"), job("b"), job("a", pid=13)]

    top.note_cpu(rows, [{"pid": 12, "looks": 4, "seen": {"a": 3, "gone": 1}}, {"pid": 13, "looks": 0, "seen": {}}])

    assert [row["cpu"] for row in rows] == [0.75, 0, None]
    lines = top.screen(rows, 1, [], "cpu", None, None)
    assert [line.split()[5] for line in lines[3:]] == ["75%", "0%", "-"]


@pytest.mark.parametrize(
    ("ms", "told"),
    [
        *((0, "0ms"), (999, "999ms"), (1_000, "1.0s"), (59_940, "59.9s"), (60_000, "1m00s"), (3_600_000, "1h00m")),
        *((90_000_000, "1d01h"), (-2_500, "-2.5s")),
    ],
)
def test_durations_are_told_in_a_few_characters(ms, told):
    assert top.duration(ms) == told
