"""Suspects: they run alone, one at a time, and nothing waits for them for ever."""

from __future__ import annotations

import logging
import threading

import pytest

import greenq
from greenq.brokers.sqlite import SqliteBroker
from greenq.brokers.sqlite.consumer import SqliteConsumer
from greenq.worker import alone
from tests.support.waiting import PATIENCE_S, happens, until


@pytest.fixture
def broker(tmp_path):
    broker = SqliteBroker(tmp_path / "queue.db")
    yield broker
    broker.close()


@pytest.fixture
def suspect(broker):
    """Makes suspects of messages: their worker has died, twice, of each of them."""
    lost = SqliteBroker(broker.path)
    consumers = {}

    def suspect(*messages):
        for message in messages:
            for _ in range(2):
                if message.queue_name not in consumers:
                    lost.declare_queue(message.queue_name)
                    consumers[message.queue_name] = lost.consume(message.queue_name)
                assert consumers[message.queue_name].fetch(50)
                broker.take_back(lost.worker_id, charge=[message.message_id])

    yield suspect
    lost.close()


@pytest.fixture
def jobs(broker):
    """An actor whose jobs note their beginnings and ends, and those that run beside them; some last until told."""

    class Jobs:
        def __init__(self):
            self.running, self.events, self.beside = set(), [], {}
            self.begun, self.may_end = {}, {}
            self.work = greenq.actor(self._work, actor_name="work", broker=broker)
            self.elsewhere = greenq.actor(self._work, actor_name="elsewhere", queue_name="other", broker=broker)

        def lasting(self, *names):
            for name in names:
                self.begun[name], self.may_end[name] = threading.Event(), threading.Event()

        def _work(self, name):
            self.events.append(f"{name} began")
            self.running.add(name)
            for each in self.running:
                self.beside.setdefault(each, set()).update(self.running - {each})
            if name in self.begun:
                self.begun[name].set()
                happens(self.may_end[name])
            self.running.discard(name)
            self.events.append(f"{name} ended")

    return Jobs()


@pytest.fixture
def told(broker, jobs):
    """Starts a worker; what it tells of suspects is among the events."""
    workers = []

    def told(**options):
        worker = greenq.Worker(broker, worker_timeout=100, **options)
        workers.append(worker)
        worker.solitude.tell = jobs.events.append
        worker.start()
        return worker

    yield told
    for each in jobs.may_end.values():
        each.set()
    for worker in workers:
        worker.stop(2000)


def consume_default_as_well(worker):
    worker.consumer_whitelist = None
    worker.add_queue("default")


def join(broker):
    for queue_name in ("default", "other"):
        broker.join(queue_name, interval=10, timeout=PATIENCE_S * 1000)


def test_a_suspect_runs_with_nothing_beside_it_and_the_others_run_after_it(broker, jobs, suspect, told):
    jobs.lasting("suspect")
    one = jobs.work.send("suspect")
    for number in range(20):
        jobs.work.send(number)
        jobs.elsewhere.send(f"elsewhere {number}")
    suspect(one)

    told(concurrency=8)
    happens(jobs.begun["suspect"])
    jobs.may_end["suspect"].set()
    join(broker)

    assert jobs.beside["suspect"] == set()
    assert len(jobs.beside) == 41


def test_what_runs_already_is_let_finish_before_a_suspect_begins(broker, jobs, suspect, told):
    jobs.lasting("earlier")
    suspected = jobs.work.message("suspect")
    broker.enqueue(suspected)
    suspect(suspected)
    jobs.elsewhere.send("earlier")
    worker = told(queues={"other"})
    happens(jobs.begun["earlier"])

    consume_default_as_well(worker)
    until(lambda: worker.slots.is_shut)
    assert "suspect began" not in jobs.events
    jobs.may_end["earlier"].set()
    join(broker)

    assert jobs.beside["suspect"] == set()
    assert jobs.events.index("earlier ended") < jobs.events.index("suspect began")


def test_a_suspect_runs_beside_what_does_not_finish_in_time(broker, jobs, suspect, told, monkeypatch):
    monkeypatch.setattr(alone, "PATIENCE_S", 0.05)
    jobs.lasting("endless")
    suspected = jobs.work.send("suspect")
    suspect(suspected)
    jobs.elsewhere.send("endless")
    worker = told(queues={"other"})
    happens(jobs.begun["endless"])

    consume_default_as_well(worker)
    broker.join("default", interval=10, timeout=PATIENCE_S * 1000)

    assert jobs.beside["suspect"] == {"endless"}
    assert suspected.message_id not in jobs.events


def test_after_a_wait_in_vain_the_next_suspects_do_not_wait(broker, jobs, suspect, told, monkeypatch):
    monkeypatch.setattr(alone, "PATIENCE_S", PATIENCE_S / 15)
    jobs.lasting("endless")
    suspects = jobs.work.send_many([(f"suspect {number}",) for number in range(20)])
    suspect(*suspects)
    jobs.elsewhere.send("endless")
    worker = told(queues={"other"})
    happens(jobs.begun["endless"])

    consume_default_as_well(worker)
    broker.join("default", interval=10, timeout=PATIENCE_S * 1000)  # less than all of them would wait

    assert all("endless" in jobs.beside[f"suspect {number}"] for number in range(20))


def test_others_run_again_beside_a_suspect_that_does_not_end(broker, jobs, suspect, told, monkeypatch):
    monkeypatch.setattr(alone, "ALONE_S", 0.05)
    jobs.lasting("suspect", "neighbour")
    suspected = jobs.work.send("suspect")
    jobs.work.send("neighbour")
    suspect(suspected)

    told()
    happens(jobs.begun["suspect"])
    happens(jobs.begun["neighbour"])

    assert jobs.events == [suspected.message_id, "suspect began", None, "neighbour began"]


def test_what_was_fetched_with_a_suspect_and_is_given_up_does_not_go_back(broker, jobs, suspect, told, caplog):
    suspected = jobs.work.send("suspect")
    killer = jobs.work.send("killer")
    suspect(suspected, killer)
    lost = SqliteBroker(broker.path)
    lost.declare_queue("default")
    assert len(lost.consume("default").fetch(2)) == 2
    broker.take_back(lost.worker_id, charge=[killer.message_id])
    lost.close()

    told()
    join(broker)

    assert jobs.beside == {"suspect": set()}
    assert [each.message.message_id for each in broker.dead_letters_of("default").each()] == [killer.message_id]
    assert caplog.text.count("goes to the dead letters") == 1


def test_a_suspect_that_runs_alone_is_all_that_its_death_would_lose(broker, jobs, suspect, told, monkeypatch):
    jobs.lasting("earlier", "suspect")
    suspected = jobs.work.send("suspect")
    suspect(suspected)
    for number in range(20):
        jobs.work.send(number)
    jobs.elsewhere.send("earlier")
    worker = told(queues={"other"})
    happens(jobs.begun["earlier"])
    write = SqliteConsumer.complete

    def write_late(consumer, verdicts):
        jobs.may_end["suspect"].wait(0.2)  # time enough for a suspect that does not wait for this
        return write(consumer, verdicts)

    monkeypatch.setattr(SqliteConsumer, "complete", write_late)
    consume_default_as_well(worker)
    until(lambda: worker.slots.is_shut)
    jobs.may_end["earlier"].set()
    happens(jobs.begun["suspect"])

    assert [broker.queue_counts(name).reserved for name in ("default", "other")] == [1, 0]
    assert jobs.events.count(suspected.message_id) == 1


def test_a_suspect_waits_for_verdicts_only_for_a_while(broker, jobs, suspect, told, monkeypatch):
    monkeypatch.setattr(alone, "PATIENCE_S", 0.05)
    jobs.lasting("suspect")
    suspected = jobs.work.send("suspect")
    suspect(suspected)
    jobs.work.send("neighbour")
    write = SqliteConsumer.complete

    def write_after_the_suspect(consumer, verdicts):
        happens(jobs.begun["suspect"])
        return write(consumer, verdicts)

    monkeypatch.setattr(SqliteConsumer, "complete", write_after_the_suspect)
    told()
    happens(jobs.begun["suspect"])
    jobs.may_end["suspect"].set()
    join(broker)

    assert suspected.message_id not in jobs.events


def test_suspects_run_one_after_the_other(broker, jobs, suspect, told):
    suspects = [jobs.work.send(f"suspect {number}") for number in range(5)]
    suspects += [jobs.elsewhere.send(f"suspect {number}") for number in range(5, 10)]
    suspect(*suspects)

    told()
    join(broker)

    assert jobs.beside == {f"suspect {number}": set() for number in range(10)}


def test_whoever_looks_at_deaths_is_told_when_a_suspect_runs_alone_and_no_longer(broker, jobs, suspect, told):
    suspected = jobs.work.send("suspect")
    suspect(suspected)
    jobs.work.send("neighbour")

    told()
    join(broker)
    until(lambda: len(jobs.events) == 6)

    assert jobs.events == [
        *(suspected.message_id, "suspect began", "suspect ended", None),
        *("neighbour began", "neighbour ended"),
    ]


def test_a_suspect_that_finished_is_none_any_more(broker, jobs, suspect, told):
    suspected = jobs.work.send("suspect")
    suspect(suspected)

    worker = told()
    join(broker)
    until(lambda: not worker.slots.is_shut)

    assert jobs.events.count("suspect ended") == 1
    assert not list(broker.dead_letters_of("default").each())


def test_a_suspect_that_waits_for_others_goes_back_when_its_worker_stops(broker, jobs, suspect, told):
    jobs.lasting("endless")
    suspected = jobs.work.send("suspect")
    suspect(suspected)
    jobs.elsewhere.send("endless")
    worker = told(queues={"other"})
    happens(jobs.begun["endless"])
    consume_default_as_well(worker)
    until(lambda: worker.slots.is_shut)

    stopping = threading.Thread(target=worker.stop, args=(PATIENCE_S * 1000,))
    stopping.start()
    until(lambda: broker.queue_counts("default").ready == 1)
    jobs.may_end["endless"].set()
    stopping.join(PATIENCE_S)

    (fetched,) = broker.consume("default").fetch(1)
    assert (fetched.charges, fetched.is_suspect) == (2, True)
    assert "suspect began" not in jobs.events


def test_a_pause_sends_a_suspect_back_that_waits_for_others(broker, jobs, suspect, told):
    jobs.lasting("endless")
    suspected = jobs.work.send("suspect")
    suspect(suspected)
    jobs.elsewhere.send("endless")
    worker = told(queues={"other"})
    happens(jobs.begun["endless"])
    consume_default_as_well(worker)
    until(lambda: worker.slots.is_shut)

    worker.pause()
    until(lambda: broker.queue_counts("default").ready == 1)
    assert not worker.slots.is_shut
    worker.resume()
    jobs.may_end["endless"].set()
    join(broker)

    assert jobs.beside["suspect"] == set()


def fails_once(function):
    """The same function, but for its first call."""
    failures = []

    def wrapper(*args, **kwargs):
        if not failures:
            failures.append(1)
            raise RuntimeError("can't start new thread")
        return function(*args, **kwargs)

    return wrapper


class FailsToAttend:
    """A runtime that starts all but the first attendant."""

    def __init__(self, runtime):
        self.spawn = fails_once(runtime.spawn)


@pytest.mark.parametrize("step", ["log", "tell", "attend"])
def test_an_error_before_a_suspect_runs_alone_stops_neither_it_nor_the_others(broker, jobs, suspect, told, step):
    suspected = jobs.work.send("suspect")
    jobs.work.send("neighbour")
    suspect(suspected)
    worker = told(queues={"other"})
    solitude = worker.solitude
    if step == "log":
        solitude.logger = logging.Logger(step)
        solitude.logger.addFilter(fails_once(lambda record: True))
    elif step == "tell":
        solitude.tell = fails_once(solitude.tell)
    else:
        solitude._runtime = FailsToAttend(solitude._runtime)

    consume_default_as_well(worker)
    join(broker)
    until(lambda: not worker.slots.is_shut)

    assert jobs.beside == {"suspect": set(), "neighbour": set()}
    told_of = [each for each in jobs.events if each in (suspected.message_id, None)]
    assert told_of in ([suspected.message_id, None], 2 * [suspected.message_id, None])


def test_a_suspect_that_is_a_coroutine_runs_alone_too(broker, jobs, suspect, told):
    @greenq.actor(broker=broker)
    async def be_suspected():
        jobs._work("suspect")

    suspected = be_suspected.send()
    suspect(suspected)
    for number in range(20):
        jobs.work.send(number)

    told()
    join(broker)

    assert jobs.beside["suspect"] == set()
    assert jobs.events[0] == suspected.message_id


def test_a_suspect_that_fails_is_retried_beside_others(broker, jobs, suspect, told):
    attempts = []

    @greenq.actor(broker=broker, max_retries=1, min_backoff=1, max_backoff=1)
    def fail():
        attempts.append(len(attempts))
        if len(attempts) == 1:
            raise RuntimeError("as it does once")

    suspected = fail.send()
    suspect(suspected)

    told()
    join(broker)
    until(lambda: len(jobs.events) == 2)

    assert attempts == [0, 1]
    assert jobs.events == [suspected.message_id, None]
