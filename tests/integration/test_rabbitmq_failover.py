"""Two servers that know nothing of each other, and a broker with the URLs of both: one is killed, the other is used.

Runs in both worlds.
"""

from __future__ import annotations

import signal

import pytest

from greenq.brokers.rabbitmq import RabbitmqBroker
from greenq.errors import ConnectionError
from tests.contract.fetching import message
from tests.support.lines import Lines
from tests.support.processes import running
from tests.support.rabbitmq_server import rabbitmq_server, shared_server
from tests.support.waiting import PATIENCE_S, until

#: How soon a worker has to go on at the other server.
ON_S = 3

PASSWORD = "only-for-friends"


# Two servers take long to start.
pytestmark = pytest.mark.threads_alone


@pytest.fixture(scope="module")
def two():
    with rabbitmq_server() as second:
        first = shared_server()
        for each in (first, second):
            each.api("PUT", "users/friend", {"password": PASSWORD, "tags": ""})
            each.api("PUT", "permissions/%2F/friend", {"configure": ".*", "write": ".*", "read": ".*"})
        yield first, second
        first.start_again()
        first.api("DELETE", "users/friend")


@pytest.fixture
def servers(two):
    """Both run; a test may leave them stopped."""
    for each in two:
        each.start_again()
    return two


WORKER = """
    import logging, os, select, sys
    import greenq
    from greenq.brokers.rabbitmq import RabbitmqBroker
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, format="%(levelname)s %(message)s")
    broker = RabbitmqBroker(url=sys.argv[1])
    @greenq.actor(broker=broker)
    def done(number):
        os.write(1, b"%d\\n" % number)
    @greenq.actor(broker=broker)
    def work(number):
        done.send(number)  # over the other connection
    worker = greenq.Worker(broker, worker_threads=8)
    worker.start()
    os.write(1, b"ready\\n")
    select.select([0], [], [])
    worker.stop(5000)
    broker.close()
"""


def send_to(server, number):
    broker = RabbitmqBroker(url=f"amqp://127.0.0.1:{server.port}", middleware=[])
    broker.declare_queue("default")
    broker.enqueue(message(number))
    broker.close()


def is_settled(server):
    """Whether nothing is in its queue, nor in hand."""
    return server.messages_in("/", "default") == 0


@pytest.mark.in_time
def test_a_worker_goes_on_at_the_next_server_when_one_is_killed_and_at_the_first_when_that_is_back(servers):
    first, second = servers
    urls = ";".join(f"amqp://friend:{PASSWORD}@127.0.0.1:{each.port}" for each in servers)
    with running(WORKER, urls, patched=True) as script:
        ran = Lines(script)
        send_to(first, 1)
        ran.wait_for(lambda lines: "1" in lines)
        until(lambda: is_settled(first))

        first.stop(signal.SIGKILL)
        send_to(second, 2)
        ran.wait_for(lambda lines: "2" in lines, ON_S)
        first.start()
        send_to(second, 3)  # it stays where it is as long as it can
        ran.wait_for(lambda lines: "3" in lines)
        until(lambda: is_settled(second) and script.errors.count("The broker is back") == 1)
        second.stop(signal.SIGKILL)
        send_to(first, 4)
        ran.wait_for(lambda lines: "4" in lines, ON_S)
        until(lambda: is_settled(first) and script.errors.count("The broker is back") == 2)

        script.say()
        ran.rest()
        assert script.process.wait(PATIENCE_S) == 0, script.errors
        script._reader.join(PATIENCE_S)

    told = [line for line in script.errors.splitlines() if line.startswith(("WARNING", "ERROR", "CRITICAL"))]
    assert len(told) == 2, script.errors
    assert PASSWORD not in script.errors
    assert "Traceback" not in script.errors


def test_a_sender_goes_on_at_the_next_server_and_no_error_has_the_password(servers, caplog):
    first, second = servers
    urls = [f"amqp://friend:{PASSWORD}@127.0.0.1:{each.port}" for each in servers]
    broker = RabbitmqBroker(url=urls, middleware=[])
    broker.declare_queue("sent")
    broker.enqueue(message("at the first", queue_name="sent"))

    errors = []
    first.stop(signal.SIGKILL)
    for _ in range(2):
        try:
            broker.enqueue(message("at the second", queue_name="sent"))
            break
        except ConnectionError as error:  # the loss itself may be noticed by this one
            errors.append(error)
    counts = broker.get_queue_message_counts("sent")

    assert counts == (1, 0, 0)
    assert broker._attach().publishing.address == f"127.0.0.1:{second.port}"
    assert len(errors) <= 1
    assert PASSWORD not in "".join(map(repr, errors)) + caplog.text
    broker.close()
