"""Pipelines and groups over kills: each worker is a process of its own, killed by SIGKILL."""

from __future__ import annotations

from collections import Counter

import pytest

import greenq
import greenq.brokers.redis
import greenq.brokers.sqlite
from greenq import group
from greenq.middleware import GroupCallbacks
from greenq.results import Results
from tests.contract.backends import open_limits, open_results, place_of
from tests.support.processes import running
from tests.support.redis_server import shared_server
from tests.support.waiting import until

WORLD = """
import os, pathlib, signal, sys, time
import greenq
from greenq.brokers.redis import RedisBroker
from greenq.brokers.sqlite import SqliteBroker
from greenq.middleware import GroupCallbacks
from greenq.results import Results
from tests.contract.backends import open_limits, open_results

name, place, folder, when = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]), sys.argv[4]
if name == "redis":
    broker = RedisBroker(url=place, heartbeat_timeout=500)
else:
    broker = SqliteBroker(folder / "queue.db", heartbeat_timeout=500)
results, limits = open_results(name, place), open_limits(name, place)
broker.add_middleware(Results(backend=results, store_results=True))
broker.add_middleware(GroupCallbacks(limits))

def die(at, whose):
    # Once in each of the three: in the first step, in a member of the group, in the last step.
    mark = folder / ("died in " + whose)
    if at == when and whose in ("begin", "work", "end") and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)

class Dying(greenq.Middleware):
    def before_ack(self, broker, message):
        die("before its verdict", message.actor_name)

    def after_ack(self, broker, message):
        die("after its verdict", message.actor_name)

broker.add_middleware(Dying())

def actor(name):
    def run(*args):
        with (folder / "runs").open("a") as runs:
            runs.write(name + "\\n")
        die("in the actor", name)
        return [name, *args]
    greenq.actor(broker=broker, actor_name=name)(run)

for each in ("begin", "work", "end", "done"):
    actor(each)

worker = greenq.Worker(broker, worker_threads=4)
worker.start()
print("runs")
time.sleep(3600)
"""


@pytest.mark.parametrize("when", ["in the actor", "before its verdict", "after its verdict"])
@pytest.mark.parametrize(("name", "patched"), [("sqlite", False), ("redis", True)])
def test_a_pipeline_comes_to_its_end_wherever_its_workers_are_killed(tmp_path, name, patched, when):
    if name == "redis":
        shared_server().client().flushall()
        broker = greenq.brokers.redis.RedisBroker(url=shared_server().url)
    else:
        broker = greenq.brokers.sqlite.SqliteBroker(tmp_path / "queue.db")
    place = place_of(name, tmp_path)
    results, limits = open_results(name, place), open_limits(name, place)
    broker.add_middleware(Results(backend=results, store_results=True))
    broker.add_middleware(GroupCallbacks(limits))
    broker.declare_queue("default")
    members = group((message("work", number) for number in range(3)), broker=broker)
    members.add_completion_callback(message("done"))
    pipe = greenq.pipeline([message("begin"), members, message("end")], broker=broker).run()
    runs = tmp_path / "runs"

    def has_ended():
        counts = broker.queue_counts("default")
        return (counts.ready, counts.reserved, counts.delayed) == (0, 0, 0)

    for _ in range(3):
        with running(WORLD, name, place, tmp_path, when, patched=patched) as worker:
            until(lambda worker=worker: worker.process.poll() is not None)
            assert worker.process.returncode == -9, worker.errors
    with running(WORLD, name, place, tmp_path, when, patched=patched):
        until(has_ended)

    assert pipe.get_result() == ["end", [["work", number, ["begin"]] for number in range(3)]]
    count = Counter(runs.read_text().split())
    assert count.keys() == {"begin", "work", "end", "done"}
    # Each was killed once, and what follows is stored with the verdict: neither lost nor doubled. What runs
    # beside a dying one (other members, and "done" beside "end") may run twice.
    times = 1 if when == "after its verdict" else 2
    assert count["begin"] == times
    # The step after the group is there from the last member's verdict on, and a worker that is killed a moment
    # after that one may have begun it.
    assert count["end"] == times or (when == "after its verdict" and count["end"] == 2)
    assert broker.queue_counts("default").dead == 0
    for each in (broker, results, limits):
        each.close()


def message(actor_name, *args):
    return greenq.Message("default", actor_name, args, {}, {})
