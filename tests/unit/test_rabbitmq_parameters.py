"""Where the servers are: URLs, pika's parameters, and what overrides what."""

from __future__ import annotations

import ssl

import pika
import pytest

from greenq.brokers.rabbitmq import RabbitmqBroker


def places(broker):
    return [(each.host, each.port, each.virtual_host) for each in broker.parameters]


def test_without_anything_it_is_the_server_of_this_machine():
    assert places(RabbitmqBroker()) == [("localhost", 5672, "/")]


def test_a_url_names_host_port_vhost_and_user():
    broker = RabbitmqBroker(url="amqp://me:se%40cret@host:1234/jobs")

    assert places(broker) == [("host", 1234, "jobs")]
    assert broker.parameters[0].credentials == pika.PlainCredentials("me", "se@cret")


@pytest.mark.parametrize("url", [["amqp://a", "amqp://b:2/x"], "amqp://a;amqp://b:2/x", "amqp://a; amqp://b:2/x;"])
def test_several_urls_are_tried_in_order(url):
    assert places(RabbitmqBroker(url=url)) == [("a", 5672, "/"), ("b", 2, "x")]


def test_keyword_arguments_replace_parts_of_every_url():
    broker = RabbitmqBroker(url=["amqp://a", "amqp://b?heartbeat=5"], heartbeat=77, virtual_host="jobs")

    assert places(broker) == [("a", 5672, "jobs"), ("b", 5672, "jobs")]
    assert [each.heartbeat for each in broker.parameters] == [77, 77]


def test_keyword_arguments_alone_are_pikas():
    broker = RabbitmqBroker(host="127.0.0.1", port=5673, heartbeat=600, connection_attempts=3)

    assert places(broker) == [("127.0.0.1", 5673, "/")]
    assert broker.parameters[0].connection_attempts == 3


def test_parameters_are_a_list_of_dicts():
    assert places(RabbitmqBroker(parameters=[{"host": "a"}, {"host": "b", "port": 2}], port=3)) == [
        ("a", 3, "/"),
        ("b", 2, "/"),
    ]


def test_parameters_may_be_one_object_of_pikas_which_stays_as_it_is():
    given = pika.ConnectionParameters(host="a", heartbeat=1)

    broker = RabbitmqBroker(parameters=given, heartbeat=9)

    assert places(broker) == [("a", 5672, "/")]
    assert (given.heartbeat, broker.parameters[0].heartbeat) == (1, 9)


def test_a_url_comes_before_parameters():
    assert places(RabbitmqBroker(url="amqp://a", parameters=[{"host": "b"}])) == [("a", 5672, "/")]


@pytest.mark.parametrize("options", [{"url": 5}, {"url": []}, {"url": [5]}, {"parameters": "x"}, {"parameters": [5]}])
def test_what_names_no_server_is_a_runtime_error(options):
    with pytest.raises(RuntimeError, match=next(iter(options))):
        RabbitmqBroker(**options)


@pytest.mark.parametrize("options", [{"no_such": 1}, {"url": "amqp://a", "no_such": 1}, {"url": "amqp://a", "_x": 1}])
def test_a_parameter_that_pika_does_not_know_is_a_type_error(options):
    with pytest.raises(TypeError):
        RabbitmqBroker(**options)


@pytest.mark.parametrize("url", ["http://me:secret@host", "amqp://me:secret@host:port", "secret", "amqp://me@secret"])
def test_a_url_that_cannot_be_read_tells_no_password(url):
    with pytest.raises(ValueError, match="amqp://user:password@host") as raised:
        RabbitmqBroker(url=url)

    assert "secret" not in str(raised.value)
    assert raised.value.__suppress_context__


def test_a_broker_is_shown_without_user_and_password():
    broker = RabbitmqBroker(url="amqp://me:secret@a/jobs;amqp://me:secret@b")

    assert repr(broker) == "RabbitmqBroker(a:5672/jobs, b:5672)"


def test_tls_verifies_certificate_and_name():
    (parameters,) = RabbitmqBroker(url="amqps://host").parameters

    assert parameters.port == 5671
    assert parameters.ssl_options.context.verify_mode is ssl.CERT_REQUIRED
    assert parameters.ssl_options.context.check_hostname


def test_confirms_are_on_unless_somebody_turns_them_off():
    assert RabbitmqBroker().confirm_delivery
    assert not RabbitmqBroker(confirm_delivery=False).confirm_delivery


def test_dead_letters_are_kept_as_long_as_the_environment_says(monkeypatch):
    monkeypatch.setenv("GREENQ_DEAD_MESSAGE_TTL", "1234")

    assert RabbitmqBroker().topology.dead_message_ttl_ms == 1234
    assert RabbitmqBroker(dead_message_ttl=5).topology.dead_message_ttl_ms == 5
