"""What docs/coming-from-celery.md and docs/coming-from-rq.md say of greenq, where no other test shows it."""

from __future__ import annotations

import re
import sys
from datetime import date, timedelta
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import pytest

import greenq
import greenq.brokers.redis
from greenq.brokers.stub import StubBroker
from greenq.cli.options import OPTIONS
from greenq.rate_limits import WindowRateLimiter
from greenq.rate_limits.backends import StubBackend as Counts
from greenq.results import Results
from greenq.results.backends import StubBackend
from tests.support.redis_server import shared_server

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = ["coming-from-celery.md", "coming-from-rq.md"]


def examples(page):
    """The Python of a page."""
    blocks = re.findall(r"^( *)```python\n(.*?)^\1```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)
    return [dedent(code) for _, code in blocks]


def greenqs_side(page):
    """The right cells of its tables."""
    return re.findall(r"^\| .* \| (.*) \|$", (DOCS / page).read_text(), re.MULTILINE)


@pytest.fixture
def run():
    """Runs the messages of a broker with one job at a time."""

    def run(broker, *queues):
        worker = greenq.Worker(broker, worker_threads=1)
        worker.start()
        try:
            for queue in queues or ("default",):
                broker.join(queue, timeout=20_000)
        finally:
            worker.stop(5000)

    return run


@pytest.fixture
def broker():
    broker = StubBroker(fail_fast_default=False)
    greenq.set_broker(broker)
    yield broker
    broker.close()


# -- the examples


class Celery:
    """As much of Celery's class as the page uses: a task is called as a function, and by its worker."""

    def __init__(self, name, broker):
        assert (name, broker) == ("shop", "redis://localhost:6379/0")

    def task(self, **options):
        assert options == {"name": "shop.send_mail", "acks_late": True}
        return lambda function: function


def run_examples(blocks):
    """Run the blocks of a page, one after the other, beside a worker that has the broker of the first."""
    names = {"__name__": "app"}
    exec(blocks[0], names)
    worker = greenq.Worker(names["broker"], worker_threads=2)
    worker.start()
    try:
        for block in blocks[1:]:
            exec(block, names)
        return names, worker
    except BaseException:
        worker.stop(5000)
        raise


def test_the_examples_for_those_who_come_from_celery_run(capsys, monkeypatch):
    celery = ModuleType("celery")
    celery.Celery = Celery
    monkeypatch.setitem(sys.modules, "celery", celery)

    names, worker = run_examples(examples("coming-from-celery.md"))
    names["send_mail_task"]("ann@example.com")
    for queue in ("default", "mail"):
        names["broker"].join(queue, timeout=20_000)
    worker.stop(5000)

    printed = capsys.readouterr().out
    assert printed.count("fetching https://example.com/") == 4
    assert "3\n" in printed
    assert "mail to ann@example.com\n" in printed


def test_the_examples_for_those_who_come_from_rq_run(capsys):
    names, worker = run_examples(examples("coming-from-rq.md"))
    names["send_mail"]("ann@example.com")
    for queue in ("default", "low", "mail"):
        names["broker"].join(queue, timeout=20_000)
    worker.stop(5000)

    printed = capsys.readouterr().out
    assert printed.count("counting https://example.com/") == 4
    assert "report of May, sent\n" in printed
    assert "mail to ann@example.com\n" in printed


# -- the tables


@pytest.mark.parametrize("page", PAGES)
def test_the_flags_and_options_on_greenqs_side_are_there(page):
    flags = {flag for option in OPTIONS for flag in option.flags}
    broker = StubBroker()
    broker.add_middleware(Results(backend=StubBackend()))
    options = broker.actor_options | {"queue_name", "priority", "lane", "actor_name"}
    cells = greenqs_side(page)

    named_flags = {flag for cell in cells for flag in re.findall(r"(?<=[` ])--?[a-z][\w-]*", cell)}
    assert named_flags <= flags
    named = {name for cell in cells for name in re.findall(r"`(\w+)=[^`]*`", cell)}
    assert named - {"delay", "broker_priority", "on", "message_id"} <= options, named - options
    assert len(cells) > 20


@pytest.mark.parametrize("page", [*PAGES, "io-on-greenlets.md"])
def test_every_link_of_the_page_leads_to_something(page):
    links = re.findall(r"\]\(([\w./-]+\.(?:md|py))(?:#([\w.-]+))?\)", (DOCS / page).read_text())
    for file, section in links:
        text = (DOCS / file).resolve().read_text()
        headings = re.findall("^#+ (.*)", text, re.MULTILINE)
        places = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in headings}
        places |= set(re.findall(r'<a id="([^"]+)">', text))
        assert not section or section in places, f"{file}#{section}"
    assert len(links) > 10


def test_the_result_of_the_step_before_is_the_last_positional_argument(broker, run):
    seen = []

    @greenq.actor
    def first(value):
        return value

    @greenq.actor
    def second(*args):
        seen.append(args)

    (first.message("result") | second.message("own")).run()
    (first.message("result") | second.message_with_options(args=("own",), pipe_ignore=True)).run()
    run(broker)

    assert seen == [("own", "result"), ("own",)]


def test_one_message_can_go_to_another_queue_under_an_id_of_ones_own(broker):
    @greenq.actor
    def note():
        pass

    broker.declare_queue("mail")
    broker.enqueue(note.message().copy(queue_name="mail", message_id="mine"))

    assert broker.queue_counts("mail").ready == 1
    assert broker.queue_counts("default").ready == 0


def test_a_message_can_be_sent_by_the_name_of_its_actor_where_the_actor_is_not_declared():
    server = shared_server()
    server.client().flushall()
    producer = greenq.brokers.redis.RedisBroker(url=server.url)
    producer.declare_queue("low")
    producer.enqueue(greenq.Message("low", "elsewhere", (1,), {}, {}))

    assert producer.queue_counts("low").ready == 1
    producer.close()
    producer.client.close()


def test_a_moment_in_the_future_is_a_delay_as_a_timedelta(broker):
    note = greenq.actor(lambda: None, actor_name="note")
    note.send_with_options(delay=timedelta(days=30))

    assert broker.queue_counts("default").delayed == 1


def test_only_some_exceptions_are_tried_again_if_the_actor_says_so(broker, run):
    tries = []

    @greenq.actor(min_backoff=1, retry_when=lambda failures, error: failures < 2 and isinstance(error, KeyError))
    def fail(with_key):
        tries.append(with_key)
        raise KeyError("again") if with_key else ValueError("never again")

    fail.send(True)
    fail.send(False)
    run(broker)

    assert sorted(tries) == [False, True, True, True]
    assert broker.queue_counts("default").dead == 2


def test_what_is_no_json_raises_where_it_is_sent(broker):
    note = greenq.actor(lambda day: None, actor_name="note")

    with pytest.raises(TypeError):
        note.send(date(2026, 1, 31))


def test_a_higher_broker_priority_and_a_lower_priority_run_first(broker, run):
    seen = []
    usual = greenq.actor(seen.append, actor_name="usual")
    first = greenq.actor(seen.append, actor_name="first", priority=-1)
    usual.send("usual")
    usual.send_with_options(args=("at the front",), broker_priority=1)
    first.send("of an actor at the front")
    run(broker)

    assert seen[-1] == "usual"


def test_dead_letters_are_sent_back_all_at_once(broker, run):
    is_fixed = False
    done = []

    @greenq.actor(queue_name="low", max_retries=0)
    def job(number):
        if not is_fixed:
            raise RuntimeError("not yet")
        done.append(number)

    job.send_many([(1,), (2,)])
    run(broker, "low")
    is_fixed = True
    broker.dead_letters_of("low").send_back_all()
    run(broker, "low")

    assert sorted(done) == [1, 2]


def test_a_window_is_one_for_all_workers():
    backend = Counts()
    one, other = (WindowRateLimiter(backend, "calls", limit=1, window=60) for _ in range(2))

    with one.acquire():
        pass
    with other.acquire(raise_on_failure=False) as acquired:
        assert not acquired
