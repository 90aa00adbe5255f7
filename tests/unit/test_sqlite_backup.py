"""What the pages for operators say of the file of the embedded broker: its copies, and its size."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

import greenq
from greenq.brokers.sqlite import SqliteBroker


@pytest.fixture
def open_broker(tmp_path):
    brokers = []

    def open_broker(name):
        broker = SqliteBroker(str(tmp_path / name), middleware=[])
        broker.declare_queue("default")
        brokers.append(broker)
        return broker

    yield open_broker
    for broker in brokers:
        broker.close()


def messages(numbers, text=""):
    return [
        greenq.Message(queue_name="default", actor_name="do", args=(number, text), kwargs={}, options={})
        for number in numbers
    ]


def backed_up(source, copy):
    """What the command .backup of sqlite3 does."""
    with closing(sqlite3.connect(source)) as opened, closing(sqlite3.connect(copy)) as made:
        opened.backup(made)


def test_a_backup_made_while_it_is_in_use_has_all_messages(open_broker, tmp_path):
    broker = open_broker("app.db")
    broker.enqueue_many(messages(range(50)))
    consumer = broker.consume("default", prefetch=20, timeout=1000)
    running = consumer.fetch(20)

    backed_up(tmp_path / "app.db", tmp_path / "copy.db")
    broker.enqueue_many(messages(range(50, 60)))
    copy = open_broker("copy.db")
    before = copy.queue_counts("default")
    copy.take_back(broker.worker_id)

    assert len(running) == 20
    assert (before.ready, before.reserved) == (30, 20)
    assert copy.queue_counts("default").ready == 50


def test_a_file_never_becomes_smaller_and_uses_again_what_was_deleted(open_broker, tmp_path):
    path = tmp_path / "app.db"
    broker = open_broker("app.db")

    def filled():
        broker.enqueue_many(messages(range(3000), "x" * 1000))
        size = settled_size(path)
        broker.flush("default")
        return size

    first = filled()
    emptied = settled_size(path)
    second = filled()

    assert first > 3_000_000
    assert emptied >= first
    assert second <= first * 1.1


def settled_size(path):
    """Of the file with all that is in its log."""
    with closing(sqlite3.connect(path)) as opened:
        opened.execute("PRAGMA wal_checkpoint(FULL)").fetchall()
    return path.stat().st_size
