"""What a user of RabbitMQ may do who is given the rights of the page, and no more."""

from __future__ import annotations

import re
import uuid

import pytest

import greenq
from greenq.brokers.rabbitmq import RabbitmqBroker
from greenq.errors import ConnectionError, ConnectionFailed
from greenq.middleware import Retries
from tests.contract.fetching import message
from tests.support.processes import ROOT
from tests.support.rabbitmq_server import shared_server
from tests.support.waiting import PATIENCE_S, until

pytestmark = pytest.mark.threads_alone

PASSWORD = "a-long-password"


@pytest.fixture
def vhost():
    with shared_server().vhost() as vhost:
        yield vhost


def documented_rights(who):
    """The three patterns that the page has for the queues tasks and mail."""
    page = (ROOT / "docs/rabbitmq.md").read_text()
    found = re.search(rf"set_permissions .*{who} \\\n +'(.*)' \\\n +'(.*)' \\\n +'(.*)'", page)
    assert found, f"docs/rabbitmq.md does not have the rights of {who}"
    return dict(zip(("configure", "write", "read"), found.groups(), strict=True))


@pytest.fixture
def broker_of(vhost):
    """Makes a broker for a user with these rights."""
    server, brokers, users = vhost.server, [], []

    def make(rights):
        user = "user-" + uuid.uuid4().hex[:12]
        server.api("PUT", f"users/{user}", {"password": PASSWORD, "tags": ""})
        users.append(user)
        server.api("PUT", f"permissions/{vhost.name}/{user}", rights)
        url = vhost.url.replace("guest:guest", f"{user}:{PASSWORD}")
        broker = RabbitmqBroker(url=url, middleware=[Retries(min_backoff=10, max_backoff=20)])
        brokers.append(broker)
        return broker

    yield make
    for broker in brokers:
        broker.close()
    for user in users:
        server.api("DELETE", f"users/{user}")


def test_the_rights_on_the_page_are_enough_for_all_that_greenq_does(broker_of):
    broker = broker_of(documented_rights("greenq"))
    ran = []

    @greenq.actor(broker=broker, queue_name="mail", max_retries=1)
    def mail(what):
        ran.append(what)
        if what == "fails":
            raise RuntimeError("the post office is closed")

    worker = greenq.Worker(broker, worker_threads=2)
    worker.start()
    try:
        mail.send("now")
        mail.send_with_options(args=("later",), delay=20)
        mail.send_many([("first",), ("second",)])
        mail.send("fails")
        letters = broker.dead_letters_of("mail")
        until(lambda: letters.count() == 1)
        (letter,) = letters.page().letters
        letters.send_back([letter.id])
        until(lambda: ran.count("fails") == 4)
        until(lambda: letters.count() == 1)
        letters.delete_all()
        broker.join("mail", timeout=PATIENCE_S * 1000)
    finally:
        worker.stop(PATIENCE_S * 1000)
    broker.flush("mail")

    assert sorted(set(ran)) == ["fails", "first", "later", "now", "second"]
    assert sum(broker.queue_counts("mail")[2:]) == 0


def test_a_queue_that_the_rights_do_not_name_is_refused(broker_of):
    broker = broker_of(documented_rights("greenq"))
    broker.declare_queue("others")

    with pytest.raises(ConnectionFailed, match=r"access to queue 'others.*refused"):
        broker.enqueue(message(1, queue_name="others"))


def test_a_user_may_send_to_every_queue_of_the_virtual_host(broker_of, vhost):
    owner = RabbitmqBroker(url=vhost.url, middleware=[])
    owner.declare_queue("others", ensure=True)
    owner.close()
    broker = broker_of(documented_rights("greenq"))

    broker.channel.basic_publish("", "others", b"a message")

    until(lambda: vhost.server.messages_in(vhost.name, "others") == 1)


@pytest.mark.parametrize("missing", ["configure", "write", "read"])
def test_none_of_the_rights_can_be_left_out(broker_of, missing):
    broker = broker_of({**documented_rights("greenq"), missing: "^$"})
    broker.declare_queue("mail")

    with pytest.raises(ConnectionError):
        broker.enqueue(message(1, queue_name="mail"))
