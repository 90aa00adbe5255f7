"""Messages that kill their workers: who is charged with a death, who runs alone, who is given up.

RabbitMQ does not say which worker had a message, and counts in its own way: see tests/integration/
test_rabbitmq_losses.py. Here it is only asked to take the words.
"""

from __future__ import annotations

import json
import zlib

import pytest

import greenq
from greenq.brokers.rabbitmq import RabbitmqBroker
from greenq.brokers.redis import RedisBroker
from greenq.brokers.sqlite import SqliteBroker
from greenq.brokers.stub import StubBroker
from greenq.suspicion import LONGEST_CAUSE
from greenq.verdict import Action, Verdict

from .brokers import CASES
from .fetching import message, names, take

KINDS = [SqliteBroker, RedisBroker, RabbitmqBroker, StubBroker]


@pytest.fixture(params=[name for name in CASES if name != "stub" and not name.startswith("rabbitmq")])
def case(request):
    return CASES[request.param]


@pytest.fixture
def again(broker):
    """Makes another broker of the same messages, as another process has it, with these settings."""
    made = []

    def again(**settings):
        if isinstance(broker, SqliteBroker):
            other = SqliteBroker(broker.path, **settings)
        else:
            other = RedisBroker(client=broker.client, **settings)
        other.declare_queue("default")
        made.append(other)
        return other

    yield again
    for other in made:
        other.close()


@pytest.fixture
def die(broker, again):
    """Has a worker take all that is ready and die, so many times; answers what it had the last time."""
    worker = again()
    consumer = worker.consume("default")

    def die(times=1, *, charge=(), cause=None):
        for _ in range(times):
            had = consumer.fetch(50)
            taken = broker.take_back(worker.worker_id, charge=[each.message_id for each in charge], cause=cause)
            assert taken == len(had) > 0
        return had

    return die


def test_what_a_dead_worker_had_is_given_back_uncharged_beside_the_one_that_killed_it(broker, die, consumer):
    killer = broker.enqueue(message("killer"))
    broker.enqueue(message("neighbour"))

    die(2, charge=[killer])

    by_name = {name: each for each in take(consumer, 2) for name in names([each])}
    assert by_name["killer"].charges == 2
    assert by_name["killer"].is_suspect
    assert by_name["neighbour"].charges == 0
    assert not by_name["neighbour"].is_suspect
    assert {each.deliveries for each in by_name.values()} == {2}


def test_neighbours_of_a_killer_never_become_suspects(broker, die, consumer):
    killer = broker.enqueue(message("killer"))
    broker.enqueue(message("neighbour"))

    die(10, charge=[killer])

    *_, neighbour = sorted(take(consumer, 2), key=lambda each: names([each]))
    assert (neighbour.deliveries, neighbour.is_suspect, neighbour.failed) == (10, False, False)


def test_the_first_death_makes_no_suspect(broker, die, consumer):
    killer = broker.enqueue(message("killer"))

    die(charge=[killer])

    (fetched,) = take(consumer, 1)
    assert (fetched.charges, fetched.is_suspect, fetched.failed) == (1, False, False)


def test_a_message_that_killed_three_workers_comes_given_up_with_the_last_cause(broker, die, consumer):
    killer = broker.enqueue(message("killer"))
    die(2, charge=[killer], cause="exited with code 1; 40 MiB")

    die(charge=[killer], cause="was killed by SIGSEGV; 512 MiB")

    (fetched,) = take(consumer, 1)
    assert fetched.failed
    assert fetched.reason == ("Its worker was lost 3 times while it ran: the last was killed by SIGSEGV; 512 MiB.")


def test_a_message_that_is_given_up_is_a_dead_letter_that_its_actor_never_sees(broker, die, start, dead):
    runs = []

    @greenq.actor(broker=broker)
    def kill():
        runs.append(1)

    killer = kill.send()
    die(3, charge=[killer], cause="was killed by SIGKILL; 1024 MiB")

    start()
    broker.join(kill.queue_name, timeout=20_000)

    assert not runs
    ((letter, reason),) = dead()
    assert letter.message_id == killer.message_id
    assert reason == "Its worker was lost 3 times while it ran: the last was killed by SIGKILL; 1024 MiB."


def test_a_dead_letter_says_how_often_its_worker_was_lost(broker, die, consumer):
    killer = broker.enqueue(message("killer"))
    die(3, charge=[killer])

    (given_up,) = take(consumer, 1)
    consumer.complete([Verdict(Action.NACK, given_up)])

    (letter,) = broker.dead_letters_of("default").page().letters
    assert letter.deliveries == 3
    assert letter.reason == "Its worker was lost 3 times while it ran."


def test_deaths_that_nobody_saw_make_suspects_and_condemn_nobody(broker, die, consumer):
    broker.enqueue(message("one"))
    broker.enqueue(message("other"))

    die(2)
    assert not any(each.is_suspect for each in die())
    assert all(each.is_suspect for each in die(7))

    for fetched in take(consumer, 2):
        assert (fetched.is_suspect, fetched.failed, fetched.charges) == (True, False, 0)
        assert fetched.deliveries == 10


def test_a_lease_that_ran_out_is_a_death_that_nobody_saw(broker, again):
    broker.enqueue(message("job"))
    rescuer = again(heartbeat_timeout=300).consume("default", timeout=20_000)
    for _ in range(3):
        worker = again(heartbeat_timeout=300)
        assert names(take(worker.consume("default"), 1)) == ["job"]
        worker._attachment.membership._keeper.stop()
        assert rescuer.wait()

    (fetched,) = take(rescuer, 1)

    assert (fetched.deliveries, fetched.charges, fetched.is_suspect, fetched.failed) == (3, 0, True, False)


def test_a_suspect_that_goes_back_unfinished_stays_one(broker, die, consume):
    killer = broker.enqueue(message("killer"))
    die(2, charge=[killer])
    first, second = consume(), consume()

    fetched = take(first, 1)
    first.requeue(fetched)

    (again,) = take(second, 1)
    assert (again.charges, again.is_suspect, again.deliveries) == (2, True, 2)


def test_nothing_is_left_against_a_message_that_finished(broker, die, consumer, again):
    suspect = broker.enqueue(message("suspect"))
    die(2, charge=[suspect])

    consumer.complete([Verdict(Action.ACK, each) for each in take(consumer, 1)])

    broker.enqueue(suspect)  # under the same message_id
    (fetched,) = take(consumer, 1)
    assert (fetched.charges, fetched.deliveries, fetched.is_suspect) == (0, 0, False)


def test_a_retry_begins_with_nothing_against_it(broker, die, start):
    seen = []

    class Look(greenq.Middleware):
        def before_process_message(self, broker, message):
            seen.append((message.charges, message.deliveries))

    broker.add_middleware(Look())

    @greenq.actor(broker=broker, max_retries=1, min_backoff=1, max_backoff=1)
    def fail():
        raise RuntimeError("as it always does")

    die(2, charge=[fail.send()])

    start()
    broker.join(fail.queue_name, timeout=20_000)

    assert seen == [(2, 2), (0, 0)]


def test_what_is_sent_back_from_the_dead_letters_begins_with_nothing_against_it(broker, die, consumer):
    killer = broker.enqueue(message("killer"))
    die(3, charge=[killer])
    consumer.complete([Verdict(Action.NACK, each) for each in take(consumer, 1)])
    dead_letters = broker.dead_letters_of("default")

    assert dead_letters.send_back([each.id for each in dead_letters.page().letters]) == 1

    (fetched,) = take(consumer, 1)
    assert (fetched.charges, fetched.deliveries, fetched.failed) == (0, 0, False)


def test_of_two_messages_of_which_one_names_the_other_only_the_killer_is_charged(broker, die, consumer):
    killer = broker.enqueue(message("killer"))
    broker.enqueue(message("witness", killer.message_id))

    die(charge=[killer])

    assert {names([each])[0]: each.charges for each in take(consumer, 2)} == {"killer": 1, "witness": 0}


class Zipped(greenq.Encoder):
    """Writes what nobody can look into."""

    def encode(self, data):
        return zlib.compress(json.dumps(data).encode())

    def decode(self, data):
        return json.loads(zlib.decompress(data))


class Escaped(greenq.JSONEncoder):
    """Writes JSON as PHP does."""

    def encode(self, data):
        return super().encode(data).replace(b"/", rb"\/")


@pytest.fixture(params=[greenq.PickleEncoder, Zipped, Escaped])
def encoder(request):
    before = greenq.get_encoder()
    greenq.set_encoder(request.param())
    yield
    greenq.set_encoder(before)


@pytest.mark.usefixtures("encoder")
def test_only_the_killer_is_charged_however_messages_are_encoded(broker, die, consumer):
    killer = broker.enqueue(message("killer").copy(message_id="orders/42"))
    broker.enqueue(message("witness", killer.message_id, cause=killer.message_id))

    die(charge=[killer])

    assert {names([each])[0]: each.charges for each in take(consumer, 2)} == {"killer": 1, "witness": 0}


def test_a_charge_against_what_the_dead_worker_does_not_hold_counts_for_nobody(broker, die, consumer):
    broker.enqueue(message("neighbour"))

    die(5, charge=[message("finished")])

    (fetched,) = take(consumer, 1)
    assert (fetched.charges, fetched.is_suspect) == (0, False)


def test_several_messages_may_be_charged_with_one_death(broker, die, consumer):
    both = [broker.enqueue(message("one")), broker.enqueue(message("other"))]

    die(charge=both)

    assert [each.charges for each in take(consumer, 2)] == [1, 1]


@pytest.mark.parametrize("message_id", ["ключ", 'with "quotes"', "order:42", "a\\b"])
def test_any_message_id_can_be_charged(broker, die, consumer, message_id):
    odd = broker.enqueue(message("killer").copy(message_id=message_id))

    die(charge=[odd])

    assert [each.charges for each in take(consumer, 1)] == [1]


def test_a_long_cause_is_cut_and_kept_in_one_line(broker, die, consumer):
    killer = broker.enqueue(message("killer"))

    die(3, charge=[killer], cause="was lost\n" + 10_000 * "!")

    (fetched,) = take(consumer, 1)
    assert "the last was lost !!!" in fetched.reason
    assert len(fetched.reason) < LONGEST_CAUSE + 100


def test_flushing_forgets_what_there_was_against_messages(broker, die, consumer):
    killer = broker.enqueue(message("killer"))
    die(2, charge=[killer])

    broker.flush("default")
    broker.enqueue(killer)

    (fetched,) = take(consumer, 1)
    assert (fetched.charges, fetched.deliveries) == (0, 0)


def test_the_number_of_deaths_that_condemn_can_be_chosen(broker, die, again):
    killer = broker.enqueue(message("killer"))
    die(charge=[killer])
    strict = again(max_deliveries=1)

    (fetched,) = take(strict.consume("default"), 1)

    assert fetched.reason == "Its worker was lost once while it ran."


@pytest.mark.parametrize("never", [0, None])
def test_without_a_limit_nobody_is_suspected_or_given_up(broker, die, again, never):
    killer = broker.enqueue(message("killer"))
    die(10, charge=[killer])
    patient = again(max_deliveries=never)

    (fetched,) = take(patient.consume("default"), 1)

    assert (fetched.charges, fetched.is_suspect, fetched.failed) == (10, False, False)


@pytest.mark.parametrize("kind", KINDS)
def test_every_broker_takes_the_number_of_deaths(kind):
    assert kind().max_deliveries == 3
    assert kind(max_deliveries=5).max_deliveries == 5
    assert kind(max_deliveries=0).max_deliveries is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", [-1, "3", 2.5, True])
def test_a_number_of_deaths_that_is_none_is_refused(kind, wrong):
    with pytest.raises(ValueError, match="max_deliveries is a number of lost workers"):
        kind(max_deliveries=wrong)


@pytest.mark.parametrize("kind", [StubBroker, RabbitmqBroker])
def test_a_broker_that_notices_deaths_itself_takes_the_evidence_and_does_nothing(kind):
    assert kind().take_back("1", charge=["an-id"], cause="was killed by SIGKILL") == 0
