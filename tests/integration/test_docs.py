"""The examples of the documentation run as they stand, but for the addresses of servers."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from textwrap import dedent

import pytest

import greenq
import greenq.broker
import greenq.brokers.stub
from tests.support.redis_cluster import shared_cluster
from tests.support.redis_server import shared_server
from tests.support.waiting import until

DOCS = Path(__file__).resolve().parents[2] / "docs"


def examples(page):
    """The Python of a page, from the first line to the last."""
    server = shared_server()
    server.client().flushall()
    blocks = re.findall(r"^( *)```python\n(.*?)^\1```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)
    return [dedent(code).replace("localhost:6379", f"127.0.0.1:{server.port}") for _, code in blocks]


@pytest.fixture
def opened():
    """What an example has opened, and what is closed after it."""
    names = {}
    yield names
    for each in names.values():
        if isinstance(each, greenq.Broker) or type(each).__name__.endswith("Backend"):
            each.close()
    broker = greenq.broker._global_broker
    if broker is not None:
        broker.close()


def test_the_examples_of_rate_limits_run(opened, capsys):
    greenq.set_broker(greenq.brokers.stub.StubBroker())
    archived = []
    opened["send_to_the_archive"] = archived.append

    for code in examples("rate-limits.md"):
        exec(code, opened)
    opened["upload"]("a file")
    with opened["uploads"].acquire(), opened["uploads"].acquire():
        pass

    assert archived == ["a file"]
    assert capsys.readouterr().out.split() == ["False", "True"]


def test_the_examples_of_results_run(opened, capsys):
    first, reading = examples("results.md")
    # What follows the last send waits for a worker, which runs beside it.
    declared, waits = first.split("message = add.send(1, 2)")
    exec(declared, opened)
    worker = greenq.Worker(opened["broker"], worker_threads=2)
    worker.start()
    try:
        exec("message = add.send(1, 2)" + waits, opened)
        exec(reading, opened)
    finally:
        worker.stop(5000)

    assert capsys.readouterr().out.split() == ["3"]
    with pytest.raises(greenq.ResultMissing):
        opened["message"].get_result()
    opened["broker"].get_results_backend().close()


def test_the_examples_of_async_actors_run(opened, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    opened["__name__"] = "app"

    for code in examples("async-actors.md"):
        exec(code, opened)
    worker = greenq.Worker(opened["broker"], worker_threads=4)
    worker.start()
    try:
        opened["report"].send([1, 2])
        opened["crawl"].send(["somewhere"] * 1000)
        until(lambda: worker.jobs_done == 2 and len(worker.slots.running()) == 1)
    finally:
        worker.stop(20_000)

    assert capsys.readouterr().out == "saved\n"
    assert opened["broker"].get_queue_message_counts("default")[0] == 1


def test_the_examples_of_composition_run(opened, capsys):
    declared, *rest = examples("composition.md")
    exec(declared, opened)
    worker = greenq.Worker(opened["broker"], worker_threads=2)
    worker.start()
    try:
        for code in rest:
            exec(code, opened)
        opened["broker"].join("default", timeout=20_000)
    finally:
        worker.stop(5000)
    opened["broker"].get_results_backend().close()

    printed = capsys.readouterr().out
    for line in ("113", "[3, 13, 113]", "[1, 2]", "all have succeeded", "all have ended", "34", "add -> 3"):
        assert f"{line}\n" in printed


def test_the_actors_of_lanes_run(opened, tmp_path, monkeypatch):
    # Processes import what the actors are in.
    (code,) = examples("lanes.md")
    (tmp_path / "actors_of_the_page.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    opened["broker"] = broker = greenq.brokers.stub.StubBroker()
    greenq.set_broker(broker)
    actors = importlib.import_module("actors_of_the_page")
    worker = greenq.Worker(broker, worker_threads=2)
    worker.start()
    try:
        actors.render.send("a.png")
        actors.query.send("select 1")
        broker.join("default", timeout=60_000)
    finally:
        worker.stop(20_000)

    assert (actors.render.options["lane"], actors.query.options["lane"]) == ("process", "thread")
    assert worker.jobs_done == 2
    assert broker.queue_counts("default").dead == 0


def test_the_job_of_time_limits_ends_before_its_limit(opened):
    opened["broker"] = broker = greenq.brokers.stub.StubBroker()
    greenq.set_broker(broker)
    (code,) = examples("time-limits.md")
    exec(code, opened)
    worker = greenq.Worker(broker, worker_threads=1)
    worker.start()
    try:
        # The page's own limit would let it go on for 25 s.
        opened["crawl"].send_with_options(args=("https://example.com",), time_limit=5_500)
        broker.join("default", timeout=60_000)
    finally:
        worker.stop(20_000)

    assert worker.jobs_done == 1
    assert broker.queue_counts("default").dead == 0


def test_the_examples_of_redis_make_brokers(opened):
    one, sentinel, cluster = examples("redis.md")
    node = shared_cluster().nodes[0]

    exec(one.replace("10.0.0.5:6379", f"127.0.0.1:{shared_server().port}"), opened)
    first = opened["first"] = opened["broker"]
    exec(sentinel, opened)  # asks nobody yet: test_redis_sentinel.py has sentinels to ask
    opened["by sentinel"] = opened["broker"]
    exec(cluster.replace('"10.0.0.5", 6379', f'"127.0.0.1", {node.port}'), opened)

    for broker in (first, opened["broker"]):
        broker.declare_queue("of_the_page")
        assert broker.queue_counts("of_the_page").ready == 0
