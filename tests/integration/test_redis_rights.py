"""What a user of Redis may do who only sends. With the rights of workers the contract runs, as redis-tls."""

from __future__ import annotations

import re

import pytest
import redis

from greenq.brokers.redis import RedisBroker
from greenq.errors import ConnectionFailed
from tests.contract.fetching import message
from tests.support.processes import ROOT
from tests.support.redis_server import shared_server

pytestmark = pytest.mark.threads_alone

USER, PASSWORD = "greenq-sender", "a-long-password"


def documented_rules():
    page = (ROOT / "docs" / "redis.md").read_text()
    found = re.search(rf"^ +user {USER} ((?:.*\\\n)*.*)$", page, re.MULTILINE)
    assert found, f"docs/redis.md does not have the rules of {USER}"
    return found[1].replace("\\\n", " ").split()


@pytest.fixture
def admin():
    admin = shared_server().client()
    admin.flushall()
    yield admin
    admin.execute_command("ACL", "DELUSER", USER)


@pytest.fixture
def broker_with(admin):
    brokers = []

    def make(rules):
        admin.execute_command("ACL", "SETUSER", USER, "reset", *rules)
        broker = RedisBroker(port=shared_server().port, username=USER, password=PASSWORD, middleware=[])
        for queue_name in ("mail", "others"):
            broker.declare_queue(queue_name)
        brokers.append(broker)
        return broker

    yield make
    for broker in brokers:
        broker.close()


def send_in_every_way(broker, admin):
    broker.enqueue(message(1, queue_name="mail"))
    broker.enqueue(message(2, queue_name="mail"), delay=60_000)
    broker.enqueue(message(3, queue_name="mail", broker_priority=5))
    broker.enqueue_many(message(number, queue_name="mail") for number in range(4, 2000))
    admin.script_flush()
    broker.enqueue(message(2000, queue_name="mail"))


def test_the_rights_on_the_page_are_enough_to_send_in_every_way(broker_with, admin):
    broker = broker_with(documented_rules())

    send_in_every_way(broker, admin)

    reader = RedisBroker(port=shared_server().port, middleware=[])
    reader.declare_queue("mail")
    counts = reader.queue_counts("mail")
    reader.close()
    assert (counts.ready, counts.delayed) == (1999, 1)


@pytest.mark.parametrize("rule", [rule for rule in documented_rules() if rule.startswith("+")])
def test_none_of_the_rights_to_send_can_be_left_out(broker_with, admin, rule):
    broker = broker_with([each for each in documented_rules() if each != rule])

    with pytest.raises(ConnectionFailed, match="nothing was stored"):
        send_in_every_way(broker, admin)


def test_who_may_only_send_cannot_send_elsewhere_nor_read_what_others_sent(broker_with, admin):
    broker = broker_with(documented_rules())
    broker.enqueue(message(1, queue_name="mail"))
    client = redis.Redis(port=shared_server().port, username=USER, password=PASSWORD)

    with pytest.raises(ConnectionFailed, match="nothing was stored"):
        broker.enqueue(message(1, queue_name="others"))
    for command in (["HGETALL", "greenq:mail.msgs"], ["LRANGE", "greenq:mail", 0, -1], ["DEL", "greenq:mail"]):
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.execute_command(*command)
    client.close()
