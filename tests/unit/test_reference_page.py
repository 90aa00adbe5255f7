"""docs/reference.md: made from the code as it is, complete, and with links that lead somewhere."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

import greenq
from greenq.broker import Broker
from greenq.brokers.rabbitmq import RabbitmqBroker
from greenq.brokers.redis import RedisBroker
from greenq.brokers.sqlite import SqliteBroker

from .test_reference import NAMES

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "reference.md").read_text()
ANCHORS = re.findall(r'<a id="([^"]+)"></a>', PAGE)


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("build_reference", DOCS / "build_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def described(path):
    """What the page says of a name, up to the next one."""
    return re.split(r"\n#{2,4} ", PAGE.partition(f'<a id="{path}"></a>')[2].partition("# ")[2])[0]


def test_the_page_is_what_the_docstrings_say(script):
    assert script.build() == PAGE, "run python docs/build_reference.py"


def test_every_name_of_the_documents_is_on_the_page():
    missing = []
    for name in NAMES:
        path = name.path
        if name.kind == "option":
            path = f"{name.base}.{path}"
        if name.kind == "variable":
            path = path.upper().replace("DRAMATIQ", "GREENQ")
        if path.removeprefix("dramatiq.") not in ANCHORS:
            missing.append(path)

    assert missing == []


def test_every_name_that_greenq_exports_is_on_the_page():
    shown = {anchor.rpartition(".")[2] for anchor in ANCHORS}

    assert set(greenq.__all__) - shown == set()


def test_every_link_within_the_page_leads_to_something():
    headings = {
        re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in re.findall("^#+ (.*)", PAGE, re.M)
    }
    links = re.findall(r"\]\(#([^)]+)\)", PAGE)

    assert len(links) > 200
    assert [link for link in links if link not in ANCHORS and link not in headings] == []


def test_every_link_to_another_page_leads_to_a_file():
    files = re.findall(r"\]\(([\w./-]+\.md)", PAGE)

    assert files
    assert [name for name in files if not (DOCS / name).exists()] == []


def test_every_place_is_linked_to_by_one_name():
    assert len(ANCHORS) == len(set(ANCHORS))


@pytest.mark.parametrize("broker", [Broker, RedisBroker, RabbitmqBroker, SqliteBroker])
@pytest.mark.parametrize(
    "name",
    [
        *("close", "connect", "consume", "enqueue", "enqueue_many", "flush", "flush_all", "join", "write"),
        *("queue_counts", "get_queue_message_counts", "oldest_message_age", "take_back"),
    ],
)
def test_what_waits_for_a_broker_says_that_it_may_switch(broker, name):
    assert re.search(r"\b(?:May s|S)witch(?:es)?\b", getattr(broker, name).__doc__)


@pytest.mark.parametrize(
    "path",
    [
        *("Actor.send", "Actor.send_with_options", "Actor.send_many", "Message.get_result", "Message.forget_result"),
        *("group.run", "group.get_results", "group.wait", "group.completed", "group.completed_count"),
        *("pipeline.run", "pipeline.get_result", "pipeline.get_results", "pipeline.completed"),
        *("pipeline.completed_count", "Consumer.__next__", "Consumer.ack", "Consumer.nack", "Consumer.requeue"),
        *("Consumer.close", "brokers.stub.StubBroker.join", "brokers.rabbitmq.RabbitmqBroker.connection"),
        *("brokers.rabbitmq.RabbitmqBroker.channel", "rate_limits.RateLimiter.acquire"),
        *("rate_limits.Barrier.create", "rate_limits.Barrier.wait"),
        *("Worker.start", "Worker.pause", "Worker.join", "Worker.stop"),
    ],
)
def test_what_waits_for_something_says_that_it_may_switch(path):
    assert re.search(r"\b(?:May s|S)witch(?:es)?\b", described(path)), path


@pytest.mark.parametrize("path", ["results.ResultBackend", "rate_limits.RateLimiterBackend", "inspection.DeadLetters"])
def test_backends_say_at_the_top_that_all_of_it_may_switch(path):
    assert "may switch" in described(path)


#: Parameters of these names are durations, or may be.
DURATION = re.compile(r"\w*timeout|\w*delay|\w*ttl|\w*backoff|(idle_|time_)\w+|interval|max_age|bucket|window|wait")


def _with_durations():
    """The headings of what takes a duration: (path, names of the parameters)."""
    for path, heading in re.findall(r'<a id="([^"]+)"></a>\n#{3,4} .*`([^`]+)`\n', PAGE):
        names = [name for name in re.findall(r"[(,] ?(\w+)(?==|[,)])", heading) if DURATION.fullmatch(name)]
        if names:
            yield pytest.param(path, names, id=path)


def _tells_the_unit(path, name):
    text = re.search(rf"^- .*`{name}`.*", described(path), re.MULTILINE)
    return re.search("milliseconds|seconds|of no meaning|for the API's sake", text[0] if text else "", re.IGNORECASE)


@pytest.mark.parametrize(("path", "names"), list(_with_durations()))
def test_what_takes_a_duration_tells_its_unit_or_is_for_asyncio_what_another_is_that_does(path, names):
    twin = re.search(r"`(\w+)(?:\(block=True\))?` for code that runs on an asyncio loop", described(path))
    where = path if twin is None else f"{path.rpartition('.')[0]}.{twin[1]}"

    assert [name for name in names if not _tells_the_unit(where, name)] == []


def test_a_docstring_becomes_markdown(script):
    docstring = script.inspect.cleandoc(
        """What it is, and ``how``.

            first = 1

            second = 2

        Parameters:
          width(int | None): Of it,
            in two lines.
          **options: Others.

        Returns:
          Whether it is.

        Raises:
          ValueError: It is not.
        """
    )

    assert script._rendered(docstring, "Thing") == (
        "What it is, and `how`.\n\n"
        "```python\nfirst = 1\n\nsecond = 2\n```\n\n"
        'Parameters:\n\n- <a id="Thing.width"></a>`width` (int | None): Of it, in two lines.\n'
        '- <a id="Thing.options"></a>`**options`: Others.\n\n'
        "Returns: Whether it is.\n\n"
        "Raises:\n\n- `ValueError`: It is not."
    )
