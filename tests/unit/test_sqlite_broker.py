"""What is the embedded broker's own: durability, processes, leases, forks. What all brokers share is in contract/."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from contextlib import closing

import pytest

from greenq.brokers.sqlite import SqliteBroker
from greenq.consumer import Undecodable
from greenq.encoder import PickleEncoder
from greenq.errors import ConnectionClosed, QueueJoinTimeout
from greenq.message import set_encoder
from greenq.stores.sqlite.operation import Operation
from greenq.verdict import Action, Verdict
from tests.contract.fetching import acks, message, nacks, names, requeues, take, take_one
from tests.support.brokers import consume, counts, opening, send
from tests.support.processes import both_worlds, output_of, running
from tests.support.waiting import PATIENCE_S, beside, happens, until

SHORT_LEASE_MS = 300
#: For who has to keep his lease: a busy machine may stop a process for longer than the short one.
SAFE_LEASE_MS = 1000


@pytest.fixture
def path(tmp_path):
    return tmp_path / "queue.db"


@pytest.fixture
def open_broker(path):
    """Makes brokers on the same file, each as if in a process of its own; closes them after the test."""
    with opening(lambda **options: SqliteBroker(path, **options)) as open_broker:
        yield open_broker


@pytest.fixture
def broker(open_broker):
    return open_broker()


@pytest.fixture
def consumer(broker):
    return consume(broker)


def rows(broker, query, *parameters):
    with closing(sqlite3.connect(broker.path, timeout=PATIENCE_S)) as file, file:
        return file.execute(query, parameters).fetchall()


# -- storing


def test_messages_survive_the_end_of_everything(broker, open_broker):
    send(broker, 1, 2)
    broker.enqueue(message(3), delay=3_600_000)
    broker.close()

    again = open_broker()

    assert counts(again) == (2, 1, 0)
    assert names(take(consume(again), 2)) == [1, 2]


def test_an_enqueue_that_returned_survives_a_kill(path, broker):
    enqueue = """
        import sys
        from greenq.brokers.sqlite import SqliteBroker
        from greenq.message import Message
        broker = SqliteBroker(sys.argv[1], middleware=[])
        for number in range(100):
            broker.enqueue(Message("default", "work", (number,), {}, {}))
        print("stored")
        input()
    """

    with running(enqueue, path) as producer:
        producer.line()
        producer.kill()

    assert counts(broker) == (100, 0, 0)


@pytest.mark.parametrize("synchronous", ["NORMAL", "FULL"])
def test_the_disk_is_asked_for_as_much_as_was_chosen(open_broker, synchronous):
    class Synchronous(Operation):
        writes = False

        def run(self, connection):
            return connection.execute("PRAGMA synchronous").fetchone()[0]

    broker = open_broker(synchronous=synchronous)

    assert broker._attach().store.do(Synchronous()) == {"NORMAL": 1, "FULL": 2}[synchronous]


def test_payloads_of_any_bytes_come_out_as_they_went_in(broker, consumer):
    set_encoder(PickleEncoder())
    texts = ["", "\0", "\ud83e\udd95", "\0" * 100_000, "é" * 3, b"\0\xff"]

    send(broker, *texts)

    assert names(take(consumer, len(texts))) == texts


def test_one_message_that_cannot_be_stored_does_not_cost_those_stored_with_it(broker):
    """Threads whose operations share a transaction with one that fails in SQLite."""
    bad = broker.prepare(message("bad"))._replace(payload=None)
    barrier = threading.Barrier(20)
    failures = []

    def write(number):
        barrier.wait(PATIENCE_S)
        try:
            broker.write([bad if number == 7 else broker.prepare(message(number))])
        except Exception as error:
            failures.append((number, type(error)))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(20)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(PATIENCE_S)

    assert failures == [(7, sqlite3.IntegrityError)]
    assert counts(broker) == (19, 0, 0)


def test_many_threads_enqueue_at_the_same_time(broker, consumer):
    def enqueue(base):
        for number in range(base, base + 50):
            broker.enqueue(message(number))

    threads = [threading.Thread(target=enqueue, args=(base,)) for base in range(0, 1000, 50)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(PATIENCE_S)

    assert sorted(names(take(consumer, 1000))) == list(range(1000))


def test_a_patched_script_that_only_enqueues_is_not_told_that_it_is_stuck(path):
    enqueue = """
        import sys
        from greenq.brokers.sqlite import SqliteBroker
        from greenq.message import Message
        broker = SqliteBroker(sys.argv[1], middleware=[])
        broker.enqueue(Message("default", "work", (), {}, {}))
        print(broker.get_queue_message_counts("default"))
        broker.close()
    """

    assert output_of(enqueue, path, patched=True) == ["(1, 0, 0)"]


def test_importing_greenq_does_not_import_sqlite():
    assert output_of("import sys, greenq; print('sqlite3' in sys.modules)") == ["False"]


# -- order


def test_a_backlog_comes_out_by_priority_over_its_whole_length(broker, consumer):
    send(broker, *range(600))
    send(broker, "urgent", broker_priority=5)

    assert names(take(consumer, 3)) == ["urgent", 0, 1]


def test_delayed_messages_beyond_one_turn_all_come(broker, consumer):
    envelopes = [broker.prepare(message(number), delay=1) for number in range(2500)]
    broker.write(envelopes)

    assert sorted(names(take(consumer, 2500))) == list(range(2500))


def test_a_large_batch_comes_in_order(broker, consumer):
    send(broker, *range(1234))

    assert names(take(consumer, 1234)) == list(range(1234))


# -- waiting


def test_a_wait_is_ended_by_wake(consumer):
    consumer.fetch(1)

    with beside(consumer.wake):
        assert consumer.wait() is False


def test_a_wake_before_the_wait_is_not_lost(consumer):
    consumer.fetch(1)
    consumer.wake()

    assert consumer.wait() is False


@both_worlds
def test_a_waiting_process_is_woken_by_another_one(path, broker, patched):
    consume = """
        import sys
        from greenq.brokers.sqlite import SqliteBroker
        from greenq.stores.sqlite import wakeup
        wakeup.LOOK_EVERY_S = 3600
        broker = SqliteBroker(sys.argv[1], middleware=[])
        broker.declare_queue("default")
        consumer = broker.consume("default", timeout=3_600_000)
        consumer.fetch(1)
        print("waiting")
        while consumer.wait():
            for message in consumer.fetch(10):
                consumer.ack(message)
                print("got", *message.args)
                if message.args == ("stop",):
                    consumer.wake()
        broker.close()
    """
    with running(consume, path, patched=patched) as waiting:
        waiting.line()

        for each in ("one", "two", "stop"):
            broker.enqueue(message(each))
            assert waiting.line() == f"got {each}"

        waiting.rest()
    assert os.listdir(f"{path}.d") == []


def test_what_a_killed_process_left_to_be_woken_is_cleared_away(path, broker):
    wait = """
        import sys
        from greenq.brokers.sqlite import SqliteBroker
        broker = SqliteBroker(sys.argv[1], middleware=[])
        broker.declare_queue("default")
        consumer = broker.consume("default", timeout=3_600_000)
        consumer.fetch(1)
        print("waiting")
        consumer.wait()
        print("woken")
    """
    with running(wait, path) as waiting:
        waiting.line()
        # Its mark is there once it waits.
        while not any(name.startswith("default~") for name in os.listdir(f"{path}.d")):
            pass
        waiting.kill()

    broker.enqueue(message(1))

    assert os.listdir(f"{path}.d") == []


# -- settling


def test_a_verdict_that_comes_twice_is_written_once(broker, consumer):
    send(broker, 1)
    verdict = acks(take(consumer, 1))[0]
    verdict.follow_ups = [broker.prepare(message("next"))]

    assert list(consumer.complete([verdict])) == []
    assert list(consumer.complete([verdict])) == [verdict]

    assert counts(broker) == (1, 0, 0)


def test_a_late_verdict_never_meets_a_later_message(broker, consumer):
    """The row of the only message is deleted; the next one must not get its id."""
    send(broker, 1)
    old = take(consumer, 1)
    consumer.complete(acks(old))
    send(broker, 2)
    take(consumer, 1)

    refused = consumer.complete(acks(old))

    assert len(refused) == 1
    assert counts(broker) == (1, 0, 0)


def test_bytes_that_are_no_message_are_handed_out_and_die_as_they_are(broker, consumer):
    send(broker, 1, 2, 3)
    rows(broker, "UPDATE messages SET payload = ? WHERE id = 2", b"\xff{\0no message")

    messages = take(consumer, 3)
    consumer.complete([*acks([messages[0], messages[2]]), Verdict(Action.NACK, messages[1], reason="unreadable")])

    assert [isinstance(each, Undecodable) for each in messages] == [False, True, False]
    assert counts(broker) == (0, 0, 1)
    assert rows(broker, "SELECT reason, payload FROM dead_letters") == [("unreadable", b"\xff{\0no message")]


def test_a_dead_letter_holds_what_was_noted_on_the_message(broker, consumer):
    send(broker, 1)
    failed = take_one(consumer)
    failed.options["traceback"] = "half a character: \ud800"

    consumer.complete(nacks([failed], reason="odd text: \ud800"))

    [(reason, payload)] = rows(broker, "SELECT reason, payload FROM dead_letters")
    assert reason == "odd text: ?"
    assert b"half a character" in payload


def test_dead_letters_are_dropped_after_their_time(open_broker):
    broker = open_broker(heartbeat_timeout=SHORT_LEASE_MS, dead_message_ttl=1)
    consumer = consume(broker)
    send(broker, 1)

    consumer.complete(nacks(take(consumer, 1)))

    until(lambda: counts(broker) == (0, 0, 0))


# -- leases


def test_a_worker_id_is_never_used_again(open_broker):
    ids = []
    for _ in range(3):
        broker = open_broker()
        assert broker.worker_id is None
        consume(broker)
        ids.append(broker.worker_id)
        broker.close()

    assert len(set(ids)) == 3


def test_a_verdict_on_what_was_taken_back_is_refused_and_stores_nothing(broker, consumer, open_broker):
    send(broker, 1, 2)
    lost = take(consumer, 2)
    verdicts = [*acks(lost[:1]), *nacks(lost[1:])]
    for each in verdicts:
        each.follow_ups = [broker.prepare(message("retry"))]
    other = open_broker()

    taken = other.take_back(broker.worker_id)
    refused = consumer.complete(verdicts)

    assert taken == 2
    assert list(refused) == verdicts
    assert counts(broker) == (2, 0, 0)
    assert [each.deliveries for each in take(consume(other), 2)] == [1, 1]


def test_of_a_batch_only_what_is_not_held_is_refused(broker, consumer):
    send(broker, 1, 2, 3, 4)
    messages = take(consumer, 4)
    rows(broker, "UPDATE messages SET holder = 999 WHERE id IN (2, 4)")
    verdicts = [*acks(messages[:2]), *requeues(messages[2:])]

    refused = consumer.complete(verdicts)

    assert list(refused) == [verdicts[1], verdicts[3]]
    assert rows(broker, "SELECT id, state FROM messages ORDER BY id") == [(2, 2), (3, 0), (4, 2)]


def test_a_requeue_goes_back_uncharged(broker, consumer):
    send(broker, 1, 2)

    consumer.complete(requeues(take(consumer, 1)))

    again = take(consumer, 2)
    assert names(again) == [1, 2]
    assert [each.deliveries for each in again] == [0, 0]


def test_a_worker_whose_lease_was_taken_away_goes_on_under_a_new_id(broker, consumer, open_broker, caplog):
    send(broker, 1)
    old_id = broker.worker_id
    old = take_one(consumer)
    open_broker().take_back(old_id)

    again = take_one(consumer)

    assert broker.worker_id != old_id
    assert f"The lease of worker {old_id} ran out" in caplog.text
    assert list(consumer.complete(acks([old]))) != []
    assert list(consumer.complete(acks([again]))) == []


def test_an_idle_worker_notices_the_loss_by_itself(open_broker):
    broker = open_broker(heartbeat_timeout=SHORT_LEASE_MS)
    consume(broker)
    old_id = broker.worker_id

    open_broker().take_back(old_id)

    until(lambda: broker.worker_id != old_id)


HOLD = """
    import sys, time
    from greenq.brokers.sqlite import SqliteBroker
    broker = SqliteBroker(sys.argv[1], middleware=[], heartbeat_timeout=int(sys.argv[2]))
    broker.declare_queue("default")
    consumer = broker.consume("default")
    messages = consumer.fetch(10)
    print(broker.worker_id, len(messages))
    input()
    for message in messages:
        consumer.ack(message)
    print(broker.get_queue_message_counts("default"))
"""


def test_messages_of_a_killed_worker_are_delivered_again(open_broker, path):
    broker = open_broker(heartbeat_timeout=SHORT_LEASE_MS)
    send(broker, 1, 2, 3)
    with running(HOLD, path, SHORT_LEASE_MS) as holder:
        holder.line()
        consumer = consume(broker)

        os.kill(holder.pid, signal.SIGKILL)

        again = take(consumer, 3)
    assert names(again) == [1, 2, 3]
    assert [each.deliveries for each in again] == [1, 1, 1]


def test_messages_of_a_living_worker_are_left_to_it(open_broker, path):
    broker = open_broker(heartbeat_timeout=SAFE_LEASE_MS)
    send(broker, 1)
    with running(HOLD, path, SAFE_LEASE_MS, patched=True) as holder:
        holder.line()

        idle = broker.consume("default", timeout=3 * SAFE_LEASE_MS)
        assert [idle.wait() and idle.fetch(1) for _ in range(2)] == [[], False]

        holder.say()
        assert holder.rest() == ["(0, 0, 0)"]


def test_a_worker_that_was_stopped_for_long_settles_nothing_of_what_others_have(open_broker, path):
    broker = open_broker(heartbeat_timeout=SHORT_LEASE_MS)
    send(broker, 1)
    with running(HOLD, path, SHORT_LEASE_MS) as holder:
        holder.line()
        consumer = consume(broker)

        os.kill(holder.pid, signal.SIGSTOP)
        take(consumer, 1)
        os.kill(holder.pid, signal.SIGCONT)
        holder.say()

        assert holder.rest() == ["(1, 0, 0)"]


def test_a_death_that_is_reported_is_taken_back_at_once(broker, path):
    send(broker, 1, 2)
    with running(HOLD, path, 3_600_000) as holder:
        worker_id, _ = holder.line().split()
        holder.kill()

    assert broker.take_back(worker_id) == 2
    assert broker.take_back(worker_id) == 0


# -- closing


def test_close_returns_what_was_reserved_uncharged(broker, consumer, open_broker):
    send(broker, 1)
    take(consumer, 1)

    broker.close()

    other = open_broker()
    assert take_one(consume(other)).deliveries == 0
    assert [row[0] for row in rows(other, "SELECT id FROM workers")] == [int(other.worker_id)]


def test_a_closed_broker_opens_again_but_its_consumers_do_not(broker, consumer):
    broker.close()
    broker.close()

    send(broker, 1)

    assert names(take(consume(broker), 1)) == [1]
    with pytest.raises(ConnectionClosed):
        consumer.fetch(1)


@both_worlds
def test_close_ends_threads_and_frees_descriptors(path, patched):
    close = """
        import os, sys, time
        from greenq.brokers.sqlite import SqliteBroker
        from greenq.message import Message
        def used():
            # The listing itself uses one, and gevent's hub some.
            links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
            mine = [os.readlink(each) for each in links if os.path.exists(each) or os.path.islink(each)]
            return len(os.listdir("/proc/self/task")), [each for each in mine if "queue.db" in each or "socket" in each]
        time.sleep(0.001)
        before = used()
        broker = SqliteBroker(sys.argv[1], middleware=[])
        broker.declare_queue("default")
        consumer = broker.consume("default", timeout=1)
        consumer.fetch(1)
        assert not consumer.wait()
        broker.enqueue(Message("default", "work", (), {}, {}))
        assert used() != before
        broker.close()
        while used() != before:
            time.sleep(0.001)
        print(os.listdir(sys.argv[1] + ".d"))
    """

    assert output_of(close, path, patched=patched) == ["[]"]


# -- for tests and operators


def test_flush_leaves_what_another_process_is_running(broker, consumer, open_broker):
    send(broker, 1, 2)
    take(consumer, 1)

    open_broker().flush("default")

    assert counts(broker) == (1, 0, 0)


def test_join_waits_until_the_last_message_is_settled(broker, consumer):
    send(broker, 1, 2)
    joined = threading.Event()

    def join():
        broker.join("default", interval=5)
        joined.set()

    with beside(join):
        consumer.complete(acks(take(consumer, 1)))
        assert not joined.is_set()
        consumer.complete(acks(take(consumer, 1)))
        happens(joined)


def test_join_gives_up_after_its_timeout(broker):
    broker.enqueue(message(1), delay=3_600_000)

    with pytest.raises(QueueJoinTimeout, match="1 delayed"):
        broker.join("default", timeout=20)


# -- several processes


PRODUCE = """
    import sys
    from greenq.brokers.sqlite import SqliteBroker
    from greenq.message import Message
    path, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    broker = SqliteBroker(path, middleware=[])
    for number in range(first, last):
        broker.enqueue(Message("default", "work", (number,), {}, {}), delay=20 if number % 5 == 0 else None)
    broker.close()
"""
CONSUME = """
    import os, sys
    from greenq.brokers.sqlite import SqliteBroker
    from greenq.verdict import Action, Verdict
    broker = SqliteBroker(sys.argv[1], middleware=[])
    broker.declare_queue("default")
    consumer = broker.consume("default", timeout=100)
    while not os.path.exists(sys.argv[2]):
        if consumer.wait():
            messages = consumer.fetch(7)
            assert not consumer.complete([Verdict(Action.ACK, message) for message in messages])
            for message in messages:
                print(*message.args)
    broker.close()
"""


def test_processes_that_share_a_file_each_get_other_messages_and_no_locks(path, broker, tmp_path):
    stop = tmp_path / "stop"

    with (
        running(CONSUME, path, stop) as one,
        running(CONSUME, path, stop, patched=True) as two,
        running(CONSUME, path, stop) as three,
        running(CONSUME, path, stop, patched=True) as four,
        running(PRODUCE, path, 0, 1000) as producer,
        running(PRODUCE, path, 1000, 2000, patched=True) as other_producer,
    ):
        assert producer.rest() == other_producer.rest() == []
        broker.join("default", interval=10, timeout=PATIENCE_S * 1000)
        stop.touch()
        got = [int(line) for each in (one, two, three, four) for line in each.rest()]

    assert sorted(got) == list(range(2000))


@pytest.mark.in_time
def test_a_lock_of_another_process_stops_nothing_but_what_needs_it(path, broker):
    """Two seconds of a foreign write lock; the hub of a patched process goes on ticking."""
    enqueue = """
        import sys, time, gevent
        from greenq.brokers.sqlite import SqliteBroker
        from greenq.message import Message
        broker = SqliteBroker(sys.argv[1], middleware=[])
        broker.get_queue_message_counts("default")
        print("ready")
        input()
        enqueueing = gevent.spawn(broker.enqueue, Message("default", "work", (), {}, {}))
        longest, last, started = 0, time.monotonic(), time.monotonic()
        while not enqueueing.dead:
            gevent.sleep(0.002)
            now = time.monotonic()
            longest, last = max(longest, now - last), now
        enqueueing.get()
        print(longest, now - started)
        broker.close()
    """
    send(broker, 1)
    with running(enqueue, path, patched=True) as script, closing(sqlite3.connect(path, isolation_level=None)) as file:
        script.line()
        file.execute("BEGIN IMMEDIATE")
        release = threading.Timer(2, script.say)  # only a clock: the lock is released below
        script.say()
        release.start()
        release.join()

        file.execute("COMMIT")

        longest_gap_s, waited_s = map(float, script.line().split())
        script.rest()
    assert waited_s > 1.5
    assert longest_gap_s < 0.5
    assert counts(broker) == (2, 0, 0)


# -- forks


@both_worlds
def test_a_forked_child_has_a_connection_of_its_own(path, broker, patched):
    fork = """
        import os, sys
        from greenq.brokers.sqlite import SqliteBroker
        from greenq.errors import ConnectionClosed
        from greenq.message import Message
        broker = SqliteBroker(sys.argv[1], middleware=[])
        broker.declare_queue("default")
        def send(text):
            broker.enqueue(Message("default", "work", (text,), {}, {}))
        send("parent")
        consumer = broker.consume("default")
        parent_id = broker.worker_id
        pid = os.fork()
        if pid == 0:
            assert broker.worker_id is None
            try:
                consumer.fetch(1)
            except ConnectionClosed:
                send("child")
            own = broker.consume("default")
            assert broker.worker_id != parent_id
            assert len(own.fetch(1)) == 1
            broker.close()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        send("parent again")
        assert broker.worker_id == parent_id
        print(sorted(message.args[0] for message in consumer.fetch(10)))
        broker.close()
    """

    assert output_of(fork, path, patched=patched) == ["['child', 'parent', 'parent again']"]


def test_a_claim_under_a_lease_that_has_run_out_renews_it_first(broker, consumer, open_broker):
    send(broker, 1)
    rows(broker, "UPDATE workers SET lease_until = 1")

    take(consumer, 1)

    # Nobody may take back what was reserved a moment ago.
    (until,) = rows(broker, "SELECT lease_until FROM workers WHERE id = ?", int(broker.worker_id))[0]
    assert until > 1


def test_payloads_too_long_to_be_messages_hold_up_nobody(broker, consumer):
    rows(
        broker,
        "INSERT INTO messages (queue, priority, due, state, message_id, payload) "
        "VALUES ('default', 0, 0, 0, 'big', zeroblob(?))",
        5_000_000,
    )
    send(broker, 1)

    first, second = take(consumer, 2)

    assert isinstance(first, Undecodable)
    assert second.args == (1,)
