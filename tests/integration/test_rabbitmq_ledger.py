"""Nothing is lost on RabbitMQ, wherever a worker or the node is killed: what was sent is compared with what ran.

A ledger is a file to which every run of an actor appends its message's id and attempt. Workers are
processes of their own, killed by SIGKILL. Runs in both worlds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path

import pika
import psutil
import pytest

import greenq
from greenq.clock import now_ms
from tests.support.command import Command
from tests.support.processes import Script, running
from tests.support.rabbitmq_ledger import NURSERY, SENDER, WORKER, Ledger, open_ledger_broker
from tests.support.rabbitmq_server import shared_server
from tests.support.waiting import PATIENCE_S, beside, until

KINDS = ["classic", "quorum"]
QUEUES = ["default", "elsewhere"]
PERSISTENT = pika.BasicProperties(delivery_mode=2)

#: How long things are killed at random, and how often the node is in that time.
LASTS_S = float(os.environ.get("GREENQ_LEDGER_S", "8"))
NODE_DEATHS = max(1, int(LASTS_S / 20))


# -- killed at a call to the server


@pytest.fixture(scope="module")
def places():
    """For each kind of queue the URL of a virtual host of its own, whose queues need not be made for each test."""
    with shared_server().vhost() as classic, shared_server().vhost() as quorum:
        yield {"classic": classic.url, "quorum": quorum.url}


@pytest.fixture(scope="module")
def nurseries():
    """For each world a process of which workers are forks; a new one if the last has ended."""
    found = {}

    def nursery(patched):
        if patched not in found or found[patched].process.poll() is not None:
            lives_s = 3600  # not as long as one test, but as all
            found[patched] = resources.enter_context(running(NURSERY, patched=patched, lives_s=lives_s))
        return found[patched]

    with ExitStack() as resources:
        yield nursery


class Stage:
    """A queue, a ledger, and workers that are killed."""

    def __init__(self, url, kind, path, nursery):
        self.ledger = Ledger(path)
        self.broker = open_ledger_broker(url, kind, self.ledger)
        self.broker.flush_all()
        self._order = {"url": url, "kind": kind, "path": str(path)}
        self._nursery = nursery

    def send(self, actor_name, label, **options):
        return self.broker.get_actor(actor_name).send_with_options(args=(label,), **options)

    def start_worker(self, death, *, slots=4, queues=("default",)):
        self._nursery.say(json.dumps({**self._order, "death": death, "slots": slots, "queues": queues}))

    def expect_death(self):
        end_both = threading.Timer(PATIENCE_S, self._nursery.process.kill)
        end_both.start()
        assert self._nursery.line() == "-9", self._nursery.errors
        end_both.cancel()

    def kill_a_worker(self, death):
        self.start_worker(death)
        self.expect_death()

    def stop_the_worker(self):
        self._nursery.say("stop")

    def ends_as(self, *outcomes):
        """Have a worker that nobody kills run what is left; it is one of these, and nothing else is left anywhere."""
        worker = greenq.Worker(self.broker, worker_threads=4)
        worker.start()
        with suppress(AssertionError):  # which could not say what there is instead
            until(lambda: self._found() in outcomes)
        for name in QUEUES:
            self.broker.join(name, min_successes=3, interval=10, timeout=20_000)
        worker.stop()
        self.broker.close()
        assert self._found() in outcomes
        for name in QUEUES:
            assert self.broker.get_queue_message_counts(name)[:2] == (0, 0)

    def _found(self):
        dead = self.broker.get_queue_message_counts("default")[2]
        return self.ledger.runs() + Counter(dead=dead)


@pytest.fixture
def stage(places, nurseries, kind, patched, tmp_path):
    stage = Stage(places[kind], kind, tmp_path / "ledger", nurseries(patched))
    yield stage
    stage.broker.close()


#: What can be left of a message from which something follows: it alone, both, or what follows.
LEFT = {
    "before publish": ["it"],
    "after publish": ["it", "both"],
    "before confirm": ["both"],
    "after confirm": ["both"],
    "before ack": ["both"],
    "after ack": ["both", "what follows"],
}


#: How often a message runs from which nothing follows.
RUNS = {"before fetch": [1], "after fetch": [1], "before ack": [2], "after ack": [1, 2]}


def at_each_call(test):
    kinds = pytest.mark.parametrize(("kind", "patched"), [("classic", True), ("quorum", True)])
    return pytest.mark.starts_both_worlds(kinds(pytest.mark.parametrize("death", list(LEFT))(test)))


@pytest.mark.starts_both_worlds
@pytest.mark.parametrize(("kind", "patched"), [("classic", True), ("quorum", True), ("classic", False)])
@pytest.mark.parametrize("death", list(RUNS))
def test_a_message_whose_worker_is_killed_runs_again_only_if_it_ran_and_its_ack_did_not_arrive(stage, death):
    stage.send("work", "it")

    stage.kill_a_worker(death)

    stage.ends_as(*({("it", 0): times} for times in RUNS[death]))


@at_each_call
def test_a_retry_is_stored_before_its_message_is_acknowledged(stage, death):
    stage.send("fail_once", "it")

    stage.kill_a_worker(death)

    outcomes = {
        "it": {("it", 0): 2, ("it", 1): 1},
        "both": {("it", 0): 2, ("it", 1): 2},
        "what follows": {("it", 0): 1, ("it", 1): 1},
    }
    stage.ends_as(*(outcomes[left] for left in LEFT[death]))
    assert len({each.message_id for each in stage.ledger.entries("started")}) == 1


@at_each_call
def test_the_next_step_is_stored_before_its_message_is_acknowledged(stage, death):
    # In a queue of its own, which the worker that dies does not consume.
    first, second = (stage.broker.get_actor(name) for name in ("work", "work_elsewhere"))
    greenq.pipeline([first.message("it"), second.message("next")], broker=stage.broker).run()

    stage.kill_a_worker(death)

    outcomes = {
        "it": {("it", 0): 2, ("next", 0): 1},
        "both": {("it", 0): 2, ("next", 0): 2},
        "what follows": {("it", 0): 1, ("next", 0): 1},
    }
    stage.ends_as(*(outcomes[left] for left in LEFT[death]))
    assert len({each.message_id for each in stage.ledger.entries("started")}) == 2


@at_each_call
def test_a_delayed_message_is_stored_on_the_next_rung_before_it_is_acknowledged(stage, death):
    # As if it came from a rung, to a worker that is there: it has to look at it before it is due.
    channel = stage.broker.channel
    stage.start_worker(death)
    until(lambda: channel.queue_declare("default.DQ", passive=True).method.consumer_count == 1)
    delayed = stage.broker.get_actor("work").message_with_options(args=("it",), eta=now_ms() + 700)
    channel.basic_publish("", "default.DQ", delayed.encode(), PERSISTENT)

    stage.expect_death()

    outcomes = {"it": {("it", 0): 1}, "both": {("it", 0): 2}, "what follows": {("it", 0): 1}}
    stage.ends_as(*(outcomes[left] for left in LEFT[death]))
    for each in stage.ledger.entries("started"):
        assert each.message_id == delayed.message_id
        assert each.at_ms >= delayed.options["eta"]


@at_each_call
def test_a_dead_letter_is_stored_before_its_message_is_acknowledged(stage, death):
    stage.send("die", "it")

    stage.kill_a_worker(death)

    outcomes = {
        "it": {("it", 0): 2, "dead": 1},
        "both": {("it", 0): 2, "dead": 2},
        "what follows": {("it", 0): 1, "dead": 1},
    }
    stage.ends_as(*(outcomes[left] for left in LEFT[death]))


@at_each_call
def test_a_message_is_stored_with_its_count_of_losses_before_the_one_without_is_acknowledged(stage, death):
    stage.send("work", "it")
    stage.kill_a_worker("before ack")

    stage.kill_a_worker(death)

    outcomes = {"it": {("it", 0): 2}, "both": {("it", 0): 3}, "what follows": {("it", 0): 2}}
    stage.ends_as(*(outcomes[left] for left in LEFT[death]))


@pytest.mark.starts_both_worlds
@pytest.mark.parametrize(("kind", "patched"), [("classic", True), ("quorum", True), ("classic", False)])
@pytest.mark.parametrize("death", ["before return", "after return"])
def test_what_a_stopping_worker_gives_back_runs_again_only_if_it_was_interrupted(stage, death):
    stage.send("hold", "interrupted")
    stage.start_worker(death, slots=1, queues=QUEUES)
    until(lambda: stage.ledger.runs() == {("interrupted", 0): 1})
    stage.send("work_elsewhere", "sent ahead")
    until(lambda: stage.broker.get_queue_message_counts("elsewhere") == (0, 0, 0))

    stage.stop_the_worker()
    stage.expect_death()

    stage.ends_as({("interrupted", 0): 2, ("sent ahead", 0): 1})


# -- the node is killed


class Crash:
    """What was sent, and what ran, on a node that is killed in the middle and started again."""

    HELD, DELAYED = 8, 300

    def __init__(self, vhost, kind, path, resources):
        self.ledger = Ledger(path)
        arguments = (vhost.url, kind, path)
        self.broker = open_ledger_broker(vhost.url, kind, self.ledger)
        resources.callback(self.broker.close)
        self.worker = resources.enter_context(running(WORKER, *arguments, patched=True))
        # From greenlets on one kind of queue, and from threads on the other.
        self.sender = resources.enter_context(running(SENDER, *arguments, patched=kind == "quorum"))
        self._send("hold", "held", [0] * self.HELD)
        delayed = self._send("work", "delayed", [20 * number for number in range(self.DELAYED)])
        self.due = {each.message_id: each.options.get("eta", 0) for each in delayed}

    def _send(self, actor_name, label, delays):
        actor = self.broker.get_actor(actor_name)
        sent = [actor.send_with_options(args=(label,), delay=delay) for delay in delays]
        for each in sent:
            self.ledger.note("sent", label, each.message_id)
        return sent

    def count(self, what, label):
        return sum(each.label == label for each in self.ledger.entries(what))

    def missing(self):
        """What was sent and has not come to its end."""
        ended = {each.message_id for each in self.ledger.entries("ended")}
        return [each for each in self.ledger.entries("sent") if each.message_id not in ended]


@pytest.fixture(scope="module")
def node():
    """It is killed."""
    return shared_server()


@pytest.fixture(scope="module")
def crashes(node, tmp_path_factory):
    folder = tmp_path_factory.mktemp("crash")
    with ExitStack() as resources:
        found = {kind: Crash(node.new_vhost(), kind, folder / kind, resources) for kind in KINDS}
        both = found.values()
        until(lambda: all(each.count("started", "held") == each.HELD for each in both))
        until(lambda: all(each.count("sent", "plain") > 300 for each in both))
        until(lambda: all(each.count("ended", "delayed") > 10 for each in both))

        node.stop(signal.SIGKILL)
        before = {each: each.count("sent", "plain") for each in both}
        node.start()

        until(lambda: all(each.count("sent", "plain") > before[each] + 300 for each in both))
        for each in both:
            each.sender.say()
            each.sender.rest()
            each.worker.say()
        with suppress(AssertionError):  # the tests say what is missing
            until(lambda: not any(each.missing() for each in both))
        for each in both:
            each.broker.join("default", min_successes=3, interval=10, timeout=20_000)
            each.worker.say()
            each.worker.rest()
        yield found


@pytest.mark.starts_both_worlds
@pytest.mark.parametrize("kind", KINDS)
def test_all_that_was_confirmed_runs_after_the_node_was_killed(crashes, kind):
    crash = crashes[kind]

    assert crash.missing() == []
    assert crash.broker.get_queue_message_counts("default") == (0, 0, 0)


@pytest.mark.starts_both_worlds
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_delayed_when_the_node_was_killed_runs_and_never_early(crashes, kind):
    crash = crashes[kind]
    delayed = [each for each in crash.ledger.entries("started") if each.label == "delayed"]

    assert {each.message_id for each in delayed} == set(crash.due)
    assert [each for each in delayed if each.at_ms < crash.due[each.message_id]] == []


# -- anything is killed, again and again


#: What is sent, and how often.
SENT = {"work": 60, "fail_once": 15, "fail_thrice": 5, "work, fail_once, work_elsewhere": 18, "work, die": 2}


class Company:
    """A command with a worker, workers that die beside calls to the server, who sends to them, and who disturbs.

    Attributes:
      asked(set[str]): Ids of all that was sent, with or without an answer.
      due(dict[str, int]): When those that are delayed are.
      chains(list[list[str]]): Ids of the steps of pipelines.
    """

    def __init__(self, vhost, kind, path):
        self.vhost = vhost
        self.ledger = Ledger(path)
        self.broker = open_ledger_broker(vhost.url, kind, self.ledger, send_timeout=5000)
        self.asked, self.due, self.chains = set(), {}, []
        self.disturbed = Counter()
        self._kind = kind
        self._commands = []
        self.start()
        self._nursery = Script(NURSERY, patched=True, lives_s=3600 + LASTS_S)
        order = {"url": vhost.url, "kind": kind, "path": str(path), "queues": QUEUES}
        self._nursery.say(json.dumps({**order, "slots": 16, "lives_s": 0.5, "again": True}))

    # -- the command

    def start(self):
        self.command = Command(
            Path.cwd(),
            *("tests.support.rabbitmq_ledger_app:broker", "-p", "1", "-c", "200"),
            GREENQ_LEDGER_URL=self.vhost.url,
            GREENQ_LEDGER_KIND=self._kind,
            GREENQ_LEDGER_FILE=str(self.ledger.path),
        )
        self._commands.append(self.command)

    def end(self):
        self._nursery.end()
        for each in self._commands:
            each.end()

    # -- who sends

    def send_until(self, is_over):
        while not is_over.wait(0.02):
            with suppress(greenq.ConnectionError):
                self._send_something()

    def _send_something(self):
        (names,) = random.choices(list(SENT), list(SENT.values()))
        delay = random.choice([None, None, random.randrange(3000)])
        steps = [self.broker.get_actor(name).message(name) for name in names.split(", ")]
        pipe = greenq.pipeline(steps, broker=self.broker)
        ids = [each.message_id for each in pipe.messages]
        self.asked.update(ids)
        if delay is not None:
            self.due[ids[0]] = now_ms() + delay
        pipe.run(delay=delay)
        self.chains.append(ids)

    # -- who disturbs

    def at_work(self):
        """The command's workers that have run something."""
        if self.command.process.poll() is not None:
            self.start()  # it was killed, or gave up; what is left of it ends by itself
        pids = {each.pid for each in self.ledger.entries("started")}
        return [each for each in psutil.Process(self.command.pid).children() if each.pid in pids]

    def disturb(self):
        """Do something to those who are at work; nothing while the node is away, or workers start."""
        self._workers = self.at_work()
        if self._workers:
            acts = [self._kill_a_worker, self._close_a_connection, self._kill_the_supervisor, self._kill_all]
            (act,) = random.choices(acts, [4, 4, 1, 1])
            if not self.disturbed:  # at least this, on the slowest machine
                act = {"classic": self._kill_a_worker, "quorum": self._kill_the_supervisor}[self._kind]
            self.disturbed[act.__name__] += 1
            act()

    def _kill_a_worker(self):
        random.choice(self._workers).kill()

    def _kill_the_supervisor(self):
        self.command.process.kill()
        self.command.process.wait()

    def _kill_all(self):
        self.command.end()

    def _close_a_connection(self):
        with suppress(OSError):  # the node is away
            names = self.vhost.connections()
            if names:
                self.vhost.close_connection(random.choice(names))

    # -- what became of it

    def lost(self):
        """Ids of what was sent and came to no end. What kills workers, or seems to, may end as a dead letter."""
        ended = {each.message_id for each in self.ledger.entries("ended")}
        self.dead = {}
        if any(each not in ended for chain in self.chains for each in chain):
            letters = [letter for name in QUEUES for letter in self.broker.dead_letters_of(name).each()]
            self.dead = {letter.message.message_id: letter for letter in letters}
        found = []
        for chain in self.chains:
            for each in chain:
                if each in self.dead:
                    break  # what comes after it is not sent
                if each not in ended:
                    found.append(each)
        return found


@pytest.mark.starts_both_worlds
@pytest.mark.timeout(240 + 3 * LASTS_S)
def test_nothing_is_lost_when_workers_supervisors_connections_and_the_node_are_killed_at_random(node, tmp_path):
    companies = [Company(node.new_vhost(), kind, tmp_path / kind) for kind in KINDS]
    is_over = threading.Event()
    senders = [threading.Thread(target=each.send_until, args=(is_over,)) for each in companies * 4]
    for each in senders:
        each.start()
    try:
        disturb_for(LASTS_S, companies, node)
        is_over.set()
        for each in companies:
            each.end()
            each.start()
        wait_while_some_are_finished(companies)
        for each in companies:
            for name in QUEUES:
                each.broker.join(name, min_successes=3, interval=10, timeout=20_000)
    finally:
        is_over.set()
        for each in companies:
            each.end()
        for each in senders:
            each.join()

    for company in companies:
        assert company.disturbed
        assert company.lost() == []
        print(summary(company), file=sys.stderr)
        for letter in company.dead.values():
            assert letter.message.actor_name == "die" or "lost 3 times" in letter.reason
        for each in company.ledger.entries("started"):
            assert each.message_id in company.asked
            assert each.at_ms >= company.due.get(each.message_id, 0)
        for name in QUEUES:
            assert company.broker.get_queue_message_counts(name)[:2] == (0, 0)
        company.broker.close()


def disturb_for(lasts_s, companies, node):
    """Kill what there is, again and again; meanwhile the node is killed and started again, or stopped."""
    is_over = threading.Event()

    def disturb_node():
        for _ in range(NODE_DEATHS):
            is_over.wait(lasts_s / NODE_DEATHS / 3)
            node.stop(random.choice([signal.SIGTERM, signal.SIGKILL]))
            node.start()

    until(lambda: all(each.at_work() for each in companies))
    for each in companies:
        each.disturb()
    with beside(disturb_node):
        ends_at = time.monotonic() + lasts_s
        while time.monotonic() < ends_at:
            is_over.wait(random.uniform(0, 0.6))
            for each in companies:
                each.disturb()


def wait_while_some_are_finished(companies):
    """Wait until nothing is missing any more, or what is missing is stuck, however slow the machine is.

    Much is under suspicion, and runs one after the other; but something comes to its end every few seconds.
    """
    left, last_at = None, time.monotonic()
    while missing := sum(len(each.lost()) for each in companies):
        if missing != left:
            left, last_at = missing, time.monotonic()
        elif time.monotonic() - last_at > 2 * PATIENCE_S:
            return
        time.sleep(0.2)  # each look takes dead letters in hand


def summary(company):
    """For whoever runs it for an hour."""
    runs = Counter((each.message_id, each.attempt) for each in company.ledger.entries("started"))
    return (
        f"{len(company.chains)} sends confirmed, {len(runs)} attempts, {sum(runs.values()) - len(runs)} runs more; "
        f"{len(company.dead)} dead; {dict(company.disturbed)}, "
        f"and by themselves {dict(Counter(each.label for each in company.ledger.entries('died')))}"
    )
