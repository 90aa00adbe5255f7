"""What docs/coming-from-dramatiq.md says of the change, where no other test shows it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import greenq
from greenq.brokers.rabbitmq import RabbitmqBroker
from greenq.brokers.redis import RedisBroker
from greenq.brokers.stub import StubBroker
from greenq.cli.options import parse_options
from greenq.clock import now_ms
from greenq.settings import SETTINGS
from tests.support import rabbitmq_server
from tests.support.redis_server import shared_server
from tests.support.waiting import until

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "coming-from-dramatiq.md").read_text()


def payload(argument, **options):
    """A message as Dramatiq stores it."""
    fields = {"queue_name": "default", "actor_name": "note", "args": [argument], "kwargs": {}, "options": options}
    fields.update(message_id=f"id of {argument}", message_timestamp=now_ms())
    return json.dumps(fields, separators=(",", ":")).encode()


@pytest.fixture
def run():
    """Runs what is ready and delayed in the queues of a broker; returns the arguments of the actor ``note``."""
    workers = []

    def run(broker, count):
        ran = []
        greenq.actor(broker=broker, actor_name="note")(lambda *args: ran.append(args))
        worker = greenq.Worker(broker, worker_threads=1)
        workers.append(worker)
        worker.start()
        until(lambda: len(ran) == count)
        worker.stop(5000)
        return ran

    yield run
    for worker in workers:
        worker.stop(5000)


def test_what_is_ready_on_redis_in_a_namespace_of_dramatiqs_runs_and_the_rest_is_left_alone(run):
    server = shared_server()
    client = server.client()
    client.flushall()

    def store(queue, name, data):
        client.hset(f"dramatiq:{queue}.msgs", name, data)
        client.rpush(f"dramatiq:{queue}", name)

    store("default", "one", payload("one", redis_message_id="one"))
    store("default", "two", payload("two", redis_message_id="two", retries=1, requeue_timestamp=1))
    store("default.DQ", "three", payload("three", redis_message_id="three", eta=1))
    client.zadd("dramatiq:default.XQ", {"four": 1})
    client.hset("dramatiq:default.XQ.msgs", "four", payload("four", redis_message_id="four"))
    client.sadd("dramatiq:__acks__.of-an-old-worker.default", "five")
    client.hset("dramatiq:default.msgs", "five", payload("five", redis_message_id="five"))
    broker = RedisBroker(url=server.url, namespace="dramatiq")
    ran = run(broker, 2)
    broker.close()
    broker.client.close()

    assert ran == [("one",), ("two",)]
    assert client.lrange("dramatiq:default.DQ", 0, -1) == [b"three"]
    assert client.zrange("dramatiq:default.XQ", 0, -1) == [b"four"]
    assert client.smembers("dramatiq:__acks__.of-an-old-worker.default") == {b"five"}
    assert client.hkeys("dramatiq:default.msgs") == [b"five"]


def test_a_namespace_of_greenqs_on_redis_is_not_the_one_of_dramatiqs():
    server = shared_server()
    server.client().flushall()
    server.client().hset("dramatiq:default.msgs", "one", payload("one"))
    server.client().rpush("dramatiq:default", "one")
    broker = RedisBroker(url=server.url)
    broker.declare_queue("default")

    assert broker.queue_counts("default").ready == 0
    broker.close()
    broker.client.close()


def test_queues_of_a_dramatiq_deployment_on_rabbitmq_are_run_with_their_delayed_messages(run):
    with rabbitmq_server.shared_server().vhost() as vhost:
        broker = RabbitmqBroker(url=vhost.url)
        to_the_dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "default.XQ"}
        channel = broker.channel
        channel.queue_declare("default", durable=True, arguments=to_the_dead)
        channel.queue_declare("default.DQ", durable=True, arguments=to_the_dead)
        channel.queue_declare("default.XQ", durable=True, arguments={"x-message-ttl": 604_800_000})
        channel.confirm_delivery()
        delayed = {"queue_name": "default.DQ"}
        channel.basic_publish("", "default", payload("ready"))
        channel.basic_publish(
            "", "default.DQ", json.dumps({**json.loads(payload("due")), **delayed, "options": {"eta": 1}}).encode()
        )
        later = {**json.loads(payload("later")), **delayed, "options": {"eta": now_ms() + 500}}
        channel.basic_publish("", "default.DQ", json.dumps(later).encode())
        channel.basic_publish("", "default.XQ", payload("dead"))

        ran = run(broker, 3)
        dead = [letter.message.args for letter in broker.dead_letters_of("default").each()]
        broker.close()

    assert sorted(ran) == [("due",), ("later",), ("ready",)]
    assert ran[-1] == ("later",)
    assert dead == [("dead",)]


def test_a_redis_broker_takes_delays_of_more_than_seven_days():
    server = shared_server()
    server.client().flushall()
    broker = RedisBroker(url=server.url)
    note = greenq.actor(broker=broker, actor_name="note")(lambda: None)
    note.send_with_options(delay=30 * 24 * 3_600_000)

    assert broker.queue_counts("default").delayed == 1
    broker.close()
    broker.client.close()


def test_a_redis_broker_uses_parameters_beside_a_url_and_refuses_them_beside_a_client():
    broker = RedisBroker(url="redis://127.0.0.1:6379/3", socket_timeout=7)
    assert broker.client.connection_pool.connection_kwargs["socket_timeout"] == 7

    with pytest.raises(ValueError, match="not both"):
        RedisBroker(client=broker.client, url="redis://127.0.0.1")


class Counting(greenq.Middleware):
    """Notes which hooks are called."""

    def __init__(self):
        self.called = []

    def before_enqueue(self, broker, message, delay):
        self.called.append("before_enqueue")

    def after_enqueue(self, broker, message, delay):
        self.called.append("after_enqueue")

    def before_delay_message(self, broker, message):
        self.called.append("before_delay_message")


def test_the_hooks_of_a_delayed_message_are_called_when_it_is_sent_and_not_when_it_is_due(run):
    hooks = Counting()
    broker = StubBroker()
    broker.add_middleware(hooks)
    broker.declare_queue("default")
    broker.enqueue(greenq.Message("default", "note", (1,), {}, {}), delay=50)

    assert run(broker, 1) == [(1,)]
    assert hooks.called == ["before_enqueue", "after_enqueue"]


def test_dead_letters_of_the_stub_broker_are_under_the_queues_own_name():
    broker = StubBroker(fail_fast_default=False)
    broker.declare_queue("default")
    broker.enqueue(greenq.Message("default", "nobody", (), {}, {}), delay=10)
    worker = greenq.Worker(broker)
    worker.start()
    broker.join("default", timeout=20_000)
    worker.stop(5000)

    assert {name for name, letters in broker.dead_letters_by_queue.items() if letters} == {"default"}


def test_an_option_of_the_wrong_type_makes_a_dead_letter_before_any_hook():
    class Watching(greenq.Middleware):
        seen = 0

        def before_process_message(self, broker, message):
            self.seen += 1

    watching = Watching()
    broker = StubBroker(fail_fast_default=False)
    broker.add_middleware(watching, before=type(broker.middleware[0]))
    note = greenq.actor(broker=broker, actor_name="note")(lambda: None)
    note.send_with_options(time_limit="long")
    worker = greenq.Worker(broker)
    worker.start()
    broker.join("default", timeout=20_000)
    worker.stop(5000)

    (letter,) = broker.dead_letters_of("default").each()
    assert "time_limit" in letter.reason
    assert watching.seen == 0


# -- the page itself


def test_the_example_of_the_page_runs(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = {"__name__": "app"}

    exec(example, names)
    broker = greenq.get_broker()
    worker = greenq.Worker(broker)
    worker.start()
    worker.join()
    worker.stop(5000)

    assert capsys.readouterr().out == "hello world\n"


def test_the_variables_of_the_page_are_read():
    table = PAGE.partition("| Dramatiq | greenq |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`(GREENQ_\w+)`", table))

    assert named == {each.name for each in SETTINGS} - {"GREENQ_BROKER_URL", "GREENQ_BLOCK_ERROR"}
    assert {name.replace("GREENQ", "dramatiq").lower() for name in named} == set(re.findall(r"`(dramatiq_\w+)`", table))


def test_the_options_that_the_page_says_mean_the_same():
    given = "app:broker tasks -p 2 -t 5 -Q mail web -P here --pid-file a --log-file b --skip-logging -v"
    options = parse_options([*given.split(), "--worker-shutdown-timeout", "30000"])

    assert (options.broker, options.modules, options.processes, options.concurrency) == ("app:broker", ("tasks",), 2, 5)
    assert (options.queues, options.path, options.pid_file, options.log_file) == (("mail", "web"), ("here",), "a", "b")
    assert (options.skip_logging, options.worker_shutdown_timeout, options.verbose) == (True, 30_000, 1)
    assert parse_options(["app"]).concurrency == 100


def test_every_link_of_the_page_leads_to_something():
    for file, section in re.findall(r"\]\(([\w./-]+\.md)(?:#([\w-]+))?\)", PAGE):
        headings = re.findall("^#+ (.*)", (DOCS / file).resolve().read_text(), re.MULTILINE)
        slugs = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in headings}
        assert not section or section in slugs, f"{file}#{section}"
