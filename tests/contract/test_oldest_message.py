"""How long the first of the ready messages has waited."""

from __future__ import annotations

import pytest

from tests.support.waiting import until

from .fetching import message, take_one

# Of the worker and the server, and of nothing that is different in each world.
pytestmark = pytest.mark.shared_out


@pytest.fixture
def age(broker):
    """Asks for it; of a broker that cannot tell, checks that it says so and ends the test there."""
    broker.declare_queue("default")

    def ask():
        return broker.oldest_message_age("default")

    return ask


def tells(broker):
    return type(broker).__name__ in ("SqliteBroker", "RedisBroker")


def test_a_broker_that_cannot_tell_says_so(broker, age):
    broker.enqueue(message("waits"))

    assert (age() is None) is not tells(broker)


def test_nothing_has_waited_in_an_empty_queue(broker, age):
    assert not age()


def test_it_grows_until_the_message_is_fetched(broker, age, consumer):
    broker.enqueue(message("first"))
    if tells(broker):
        until(lambda: age() > 100)

    take_one(consumer)

    assert not age()


def test_a_message_behind_those_of_a_higher_priority_counts(broker, age, consumer):
    broker.enqueue(message("waits", broker_priority=-5))
    if tells(broker):
        until(lambda: age() > 100)
    broker.enqueue(message("hurries", broker_priority=5))

    hurried = take_one(consumer)

    if tells(broker):
        assert hurried.args == ("hurries",)
        assert age() > 100


def test_a_delayed_message_counts_from_its_due_time(broker, age):
    broker.enqueue(message("later"), delay=100_000)
    assert not age()

    broker.enqueue(message("soon"), delay=200)
    if tells(broker):
        until(lambda: age() > 0)
        assert age() < 100_000


def test_bytes_that_are_no_message_are_no_error(broker, age, put):
    put(b"no message")

    assert (age() is None) is not tells(broker)
