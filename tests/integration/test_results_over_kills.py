"""Results over kills and forks: each time in a process of its own, of either world."""

from __future__ import annotations

import pytest

import greenq
from greenq.brokers.sqlite import SqliteBroker
from greenq.results import ResultFailure
from greenq.results.backends import SqliteBackend
from tests.contract.backends import place_of
from tests.support.processes import both_worlds, output_of, running
from tests.support.waiting import PATIENCE_S, until


def message(**fields):
    return greenq.Message("default", "work", (), {}, {})._replace(**fields)


# -- killed anywhere

WORKER = """
import os, pathlib, signal, sys, time
import greenq
from greenq.brokers.sqlite import SqliteBroker
from greenq.results import Results
from greenq.results.backends import SqliteBackend

folder, when = pathlib.Path(sys.argv[1]), sys.argv[2]

def die(at):
    if at == when and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)

class Backend(SqliteBackend):
    def store_result(self, message, result, ttl):
        die("before the result is stored")
        super().store_result(message, result, ttl)
        die("before the verdict is handed over")

    def store_exception(self, message, exception, ttl):
        die("before the failure is stored")
        super().store_exception(message, exception, ttl)
        die("before the verdict on a failure is handed over")

broker = SqliteBroker(folder / "queue.db", heartbeat_timeout=500)
broker.add_middleware(Results(backend=Backend(folder / "store.db"), store_results=True))

@greenq.actor(broker=broker, max_retries=0)
def work():
    with (folder / "runs").open("a") as runs:
        runs.write("x")
    if "failure" in when:
        raise ValueError("bad")
    return 42

worker = greenq.Worker(broker, worker_threads=4)
worker.start()
print("runs")
time.sleep(3600)
"""


#: When a worker is killed, and what its first run leaves.
LEFT = {
    "before the result is stored": "ResultMissing",
    "before the verdict is handed over": 42,
    "before the failure is stored": "ResultMissing",
    "before the verdict on a failure is handed over": "ResultFailure",
}


@both_worlds
@pytest.mark.parametrize("when", list(LEFT))
def test_a_worker_that_is_killed_leaves_a_result_or_a_message_that_runs_again(tmp_path, when, patched):
    broker = SqliteBroker(tmp_path / "queue.db", heartbeat_timeout=500)
    broker.declare_queue("default")
    sent = broker.enqueue(message())
    backend = SqliteBackend(tmp_path / "store.db")

    with running(WORKER, tmp_path, when, patched=patched) as first:
        first.process.wait(PATIENCE_S)
    try:
        left = sent.get_result(backend=backend)
    except greenq.ResultError as error:
        left = type(error).__name__
    assert left == LEFT[when]
    with running(WORKER, tmp_path, when, patched=patched):
        if "failure" in when:
            until(lambda: broker.get_queue_message_counts("default") == (0, 0, 1))
            with pytest.raises(ResultFailure, match="bad"):
                sent.get_result(backend=backend)
        else:
            until(lambda: broker.get_queue_message_counts("default") == (0, 0, 0))
            assert sent.get_result(backend=backend) == 42

    assert (tmp_path / "runs").read_text() == "xx"
    backend.close()
    broker.close()


# -- forks

FORK = """
import os, sys
from greenq.results.backends import RedisBackend, SqliteBackend
backend = RedisBackend(url=sys.argv[2]) if sys.argv[1] == "redis" else SqliteBackend(sys.argv[2])
try:
    backend.get_result("nobody", block=True, timeout=50)
except Exception as error:
    print(type(error).__name__)
import greenq.stores.redis.values, greenq.stores.sqlite.values
greenq.stores.redis.values.LOOK_EVERY_S = greenq.stores.sqlite.values.LOOK_SELDOM_EVERY_S = 3600
begun, begin = os.pipe()
told, tell = os.pipe()
if not os.fork():
    os.write(begin, b"x")
    os.write(tell, str(backend.get_result(sys.argv[3] + "one", block=True, timeout=30_000)).encode())
    os._exit(0)
os.read(begun, 1)
import threading
def store():
    backend.store_result(sys.argv[3] + "one", 42, 600_000)
    backend.store_result(sys.argv[3] + "two", 43, 600_000)
threading.Timer(0.2, store).start()
print(backend.get_result(sys.argv[3] + "two", block=True, timeout=30_000))
print(os.read(told, 10).decode())
"""


@both_worlds
@pytest.mark.parametrize("name", ["redis", "sqlite"])
def test_a_forked_child_and_its_parent_both_hear_of_their_results(name, tmp_path, patched):
    assert output_of(FORK, name, place_of(name, tmp_path), tmp_path, patched=patched) == ["ResultTimeout", "43", "42"]
