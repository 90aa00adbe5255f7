"""What is the embedded broker's own about dead letters: how they are found in the file, counted, and brought along."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import time
from contextlib import closing

import pytest

from greenq.brokers.sqlite import SqliteBroker, dead_letters, operations
from greenq.brokers.sqlite.layout import MESSAGES
from greenq.inspection import QueueCounts
from tests.contract.fetching import message, nacks, names, take, take_one
from tests.support.brokers import consume, opening
from tests.support.processes import running
from tests.support.waiting import PATIENCE_S

INSERT = """
INSERT INTO dead_letters (queue, died_at, reason, deliveries, message_id, payload)
VALUES ('default', ?, 'no good', 0, 'id', ?)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "queue.db"


@pytest.fixture
def open_broker(path):
    with opening(lambda **options: SqliteBroker(path, **options)) as open_broker:
        yield open_broker


@pytest.fixture
def broker(open_broker):
    return open_broker()


@pytest.fixture
def letters(broker):
    return broker.dead_letters_of("default")


@pytest.fixture
def consumer(broker):
    return consume(broker)


def rows(path, query, *parameters):
    with closing(sqlite3.connect(path, timeout=PATIENCE_S)) as file, file:
        return file.execute(query, parameters).fetchall()


def bury(path, count, died_at=1_700_000_000_000):
    with closing(sqlite3.connect(path, timeout=PATIENCE_S)) as file, file:
        file.executemany(INSERT, [(died_at, message(number).encode()) for number in range(count)])


# -- nothing walks all letters


STATEMENTS = {
    "oldest page": dead_letters.OLDEST_PAGE,
    "newest page": dead_letters.NEWEST_PAGE,
    "find": dead_letters.FIND,
    "newest": dead_letters.NEWEST,
    "places": dead_letters.PLACES,
    "send back": dead_letters.SEND_BACK,
    "delete": dead_letters.DELETE,
    "delete oldest": dead_letters.DELETE_OLDEST,
    "purge": operations.PURGE_DEAD_LETTERS,
    "bury": operations.BURY,
}


@pytest.mark.parametrize("name", list(STATEMENTS))
def test_letters_are_found_by_their_index_or_id(broker, path, name):
    broker.queue_counts("default")
    statement = STATEMENTS[name]
    named = set(re.findall(r":(\w+)", statement))
    parameters = dict.fromkeys(named, "[]") if named else ["[]"] * statement.count("?")

    plan = [row[3] for row in rows_of(path, "EXPLAIN QUERY PLAN " + statement, parameters)]

    assert plan
    assert [step for step in plan if re.search(r"SCAN (dead_letters|messages)\b", step)] == []


@pytest.mark.parametrize("statement", [dead_letters.OLDEST_PAGE, dead_letters.NEWEST_PAGE], ids=["oldest", "newest"])
def test_a_page_begins_at_its_place_in_the_index(broker, path, statement):
    broker.queue_counts("default")
    parameters = {"queue": "default", "after": 5, "until": 9, "limit": 2, "longest": 1, "budget": 1}

    plan = [row[3] for row in rows_of(path, "EXPLAIN QUERY PLAN " + statement, parameters)]

    searches = [step for step in plan if "dead_letters_by_queue" in step]
    assert searches
    assert all(re.search(r"\(queue=\? AND (id|rowid)[<>]\?", step) for step in searches)


def rows_of(path, query, parameters):
    with closing(sqlite3.connect(path)) as file:
        return file.execute(query, parameters).fetchall()


def test_counting_does_not_look_at_the_letters(broker, path):
    broker.queue_counts("default")

    plan = [row[3] for row in rows_of(path, "EXPLAIN QUERY PLAN " + operations.COUNT, {"queue": "default"})]

    assert [step for step in plan if re.search(r"dead_letters\b", step)] == []


def test_the_count_is_right_whoever_inserts_and_deletes(broker, path, letters):
    letters.count()
    bury(path, 10)
    rows(path, "DELETE FROM dead_letters WHERE id <= 3")

    assert letters.count() == 7
    assert broker.dead_letters_of("other").count() == 0
    broker.flush("default")
    assert letters.count() == 0


def test_expired_letters_are_dropped_a_bounded_number_at_a_time(broker, path, letters):
    letters.count()
    bury(path, 25)

    with closing(sqlite3.connect(path)) as file, file:
        dropped = file.execute(operations.PURGE_DEAD_LETTERS, (1_700_000_000_001, 10)).rowcount

    assert dropped == 10
    assert letters.count() == 15


def test_many_letters_that_expired_together_are_all_dropped_by_a_worker(open_broker, path):
    broker = open_broker(heartbeat_timeout=300)
    letters = broker.dead_letters_of("default")
    letters.count()
    bury(path, 5000, died_at=1)

    broker.consume("default")

    deadline = time.monotonic() + PATIENCE_S
    while letters.count():
        assert time.monotonic() < deadline, "they were not dropped"
        time.sleep(0.01)


def test_an_id_is_never_given_again(broker, consumer, letters):
    broker.enqueue(message("a"))
    consumer.complete(nacks([take_one(consumer)]))
    (first,) = letters.page().letters
    letters.delete(first.id)

    broker.enqueue(message("b"))
    consumer.complete(nacks([take_one(consumer)]))

    (second,) = letters.page().letters
    assert int(second.id) > int(first.id)


def test_a_letter_tells_how_often_its_message_was_taken_back(broker, consumer, letters):
    broker.enqueue(message("a"))
    take_one(consumer)
    broker.take_back(broker.worker_id)

    consumer.complete(nacks([take_one(consumer)]))

    assert [letter.deliveries for letter in letters.each()] == [1]


SEND_ALL_BACK = """
    import sys
    from greenq.brokers.sqlite import SqliteBroker
    SqliteBroker(sys.argv[1], middleware=[]).dead_letters_of("default").send_back_all(batch_size=5, on_batch=print)
    print("done")
"""


def test_a_process_that_is_killed_while_it_sends_back_loses_and_doubles_nothing(broker, path, letters):
    letters.count()
    bury(path, 20_000)
    with running(SEND_ALL_BACK, path) as script:
        for _ in range(3):
            script.line()
        os.kill(script.pid, signal.SIGKILL)
        script.process.wait(PATIENCE_S)

    ready, _, _, dead = broker.queue_counts("default")
    assert 15 <= ready < 20_000
    assert ready + dead == 20_000
    assert letters.send_back_all() == dead
    assert broker.queue_counts("default") == (20_000, 0, 0, 0)


# -- files of earlier versions


VERSION_2 = """
ALTER TABLE messages RENAME TO present_messages;
DROP INDEX messages_ready;
DROP INDEX messages_delayed;
DROP INDEX messages_held;
CREATE TABLE messages (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  queue TEXT NOT NULL,           -- canonical name
  priority INTEGER NOT NULL,     -- lower first
  due INTEGER NOT NULL,          -- Unix ms: when it was enqueued, or its eta
  state INTEGER NOT NULL,
  holder INTEGER,
  deliveries INTEGER NOT NULL DEFAULT 0,  -- how often it was taken back from a worker
  message_id TEXT NOT NULL,
  payload BLOB NOT NULL          -- as the encoder made it
) STRICT;
CREATE INDEX messages_ready ON messages (queue, priority, due, id) WHERE state = 0;
CREATE INDEX messages_delayed ON messages (queue, due, id) WHERE state = 1;
CREATE INDEX messages_held ON messages (holder) WHERE state = 2;
INSERT INTO messages SELECT id, queue, priority, due, state, holder, deliveries, message_id, payload
FROM present_messages;
DROP TABLE present_messages;
PRAGMA user_version = 2;
"""

VERSION_1 = """
CREATE TABLE dead_letters (
  id INTEGER PRIMARY KEY,
  queue TEXT NOT NULL,
  died_at INTEGER NOT NULL,      -- Unix ms
  reason TEXT,
  deliveries INTEGER NOT NULL,
  message_id TEXT NOT NULL,
  payload BLOB NOT NULL
) STRICT;
CREATE INDEX dead_letters_by_queue ON dead_letters (queue, id);
CREATE INDEX dead_letters_by_age ON dead_letters (died_at);
"""


def make_version_2(path):
    """A file as version 2 left it: nothing was noted against messages. One has been taken back once."""
    broker = SqliteBroker(path, middleware=[])
    broker.enqueue(message("ready"))
    broker.close()
    with closing(sqlite3.connect(path)) as file:
        file.execute("UPDATE messages SET deliveries = 1")
        file.commit()
        file.executescript(VERSION_2)


def make_version_1(path):
    """A file as version 1 left it: the dead letters were different, too."""
    make_version_2(path)
    with closing(sqlite3.connect(path)) as file:
        file.executescript(
            "DROP TABLE dead_letters; DROP TABLE dead_letter_counts;" + VERSION_1 + "PRAGMA user_version = 1"
        )
    bury(path, 3)


def schema_of(path):
    found = rows(path, "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")
    return {name: re.sub(r"--.*|\s", "", sql).replace('"', "") for name, sql in found}


def test_a_file_of_version_1_is_brought_to_the_present_one_with_all_it_holds(open_broker, path, tmp_path):
    make_version_1(path)
    broker = open_broker()
    letters = broker.dead_letters_of("default")

    assert broker.queue_counts("default") == QueueCounts(1, 0, 0, 3)
    assert names(letter.message for letter in letters.each(oldest_first=True)) == [0, 1, 2]
    assert letters.send_back_all() == 3
    consumer = consume(broker)
    consumer.complete(nacks(take(consumer, 4)))
    assert letters.count() == 4
    assert rows(path, "PRAGMA user_version") == [(MESSAGES.version,)]
    consumer.close()


def test_the_messages_of_a_file_of_version_2_have_nothing_against_them(open_broker, path):
    make_version_2(path)
    broker = open_broker()
    assert rows(path, "PRAGMA user_version") == [(2,)]

    (fetched,) = take(consume(broker), 1)

    assert rows(path, "PRAGMA user_version") == [(MESSAGES.version,)]
    assert (fetched.deliveries, fetched.charges, fetched.is_suspect) == (1, 0, False)


@pytest.mark.parametrize("make_old", [make_version_1, make_version_2])
def test_a_file_that_was_brought_along_is_like_a_new_one(open_broker, path, tmp_path, make_old):
    make_old(path)
    open_broker().queue_counts("default")
    new = SqliteBroker(tmp_path / "new.db", middleware=[])
    new.queue_counts("default")
    new.close()

    assert schema_of(path) == schema_of(tmp_path / "new.db")


def test_a_process_of_version_1_goes_on_beside_one_of_the_present(open_broker, path):
    make_version_1(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.execute(INSERT, (1, message("before").encode()))
        broker = open_broker()
        assert broker.queue_counts("default").dead == 4

        old.execute(INSERT, (1, message("after").encode()))

    letters = broker.dead_letters_of("default")
    assert letters.count() == 5
    assert letters.page().letters[0].message.args == ("after",)
