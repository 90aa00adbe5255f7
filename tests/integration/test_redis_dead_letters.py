"""What is Redis's own about dead letters: what each call costs the server, ids and payloads of others, lost answers.

What all brokers share is in contract/test_dead_letters.py. Runs in both worlds.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from urllib.parse import unquote_to_bytes

import pytest
import redis

from greenq.brokers.redis import RedisBroker
from greenq.brokers.redis.keys import next_id
from greenq.brokers.redis.links import Link
from greenq.consumer import Undecodable
from greenq.errors import ConnectionClosed, ConnectionFailed
from greenq.message import MAX_MESSAGE_BYTES
from tests.contract.fetching import message, nacks, names, take, take_one
from tests.support.brokers import consume, opening
from tests.support.processes import running
from tests.support.redis_server import redis_server, shared_server
from tests.support.waiting import PATIENCE_S, until

KEYS = [f"greenq:default~dead{end}" for end in ("", ".msgs", ".reasons", ".deliveries")]


@pytest.fixture
def server():
    server = shared_server()
    server.client().flushall()
    return server


@pytest.fixture
def client(server):
    return server.client()


@pytest.fixture
def broker(server):
    with opening(RedisBroker) as open_broker:
        yield open_broker(url=server.url)


@pytest.fixture
def letters(broker):
    return broker.dead_letters_of("default")


@pytest.fixture
def consumer(broker):
    return consume(broker)


def bury(client, ids, *, died_at_ms=1_700_000_000_000, payload=None):
    """Dead letters as a settled batch leaves them: all of one millisecond."""
    payload = message("a").encode() if payload is None else payload
    pipe = client.pipeline(transaction=False)
    for id in ids:
        pipe.zadd(KEYS[0], {id: died_at_ms})
        pipe.hset(KEYS[1], id, payload)
        pipe.hset(KEYS[2], id, "no good")
    pipe.execute()


def numbered(count):
    return [f"0123456789ab~{number:08x}" for number in range(count)]


def commands_for(client, run):
    """What scripts ran on the server for this, as lists of words."""
    commands = []
    with client.monitor() as monitor:
        run()
        client.echo("the end")
        while True:
            seen = monitor.next_command()
            if seen["command"].startswith("ECHO"):
                return commands
            if seen["client_type"] == "lua":
                commands.append(seen["command"].split(" "))


def calls(commands):
    return Counter(words[0] for words in commands)


# -- what it costs the server


#: Commands on dead letters whose cost does not grow with their number, or with its logarithm.
CHEAP = {"ZCARD", "ZCOUNT", "ZSCORE", "ZADD", "ZREM", "HSTRLEN", "HGET", "HMGET", "HSET", "HDEL"}


def walks(commands, most):
    """Those that read more than so many dead letters."""
    found = []
    for words in commands:
        command, key, *arguments = (*words, "", "")
        if command not in ("SCAN", "KEYS") and (command in CHEAP or not key.startswith(KEYS[0])):
            continue
        # A negative number counts from the end.
        is_range = command == "ZRANGE" and 0 <= int(arguments[0]) <= int(arguments[1]) < int(arguments[0]) + most
        is_limited = command == "ZRANGEBYSCORE" and "LIMIT" in arguments and int(arguments[-3]) <= most
        if not is_range and not is_limited:
            found.append(words)
    return found


def test_what_is_looked_at_decides_the_cost_and_not_how_many_letters_there_are(broker, client, letters):
    def look():
        broker.queue_counts("default")
        letters.count()
        page = letters.page(limit=100)
        letters.page(limit=100, oldest_first=True)
        letters.get(page.letters[0].id)

    ids = numbered(20_000)
    bury(client, ids[:200])
    look()  # the scripts become known
    few = commands_for(client, look)
    bury(client, ids[200:])
    many = commands_for(client, look)

    assert letters.count() == 20_000
    assert calls(many) == calls(few)
    assert calls(many)["HSTRLEN"] == 201
    assert walks(many, 100) == []


def test_the_place_of_a_cursor_is_found_by_halves(client, letters):
    bury(client, numbered(20_000))
    page = letters.page(limit=100)
    letters.page(page.after)

    commands = commands_for(client, lambda: letters.page(page.after, 100))

    assert calls(commands)["ZRANGE"] <= 1 + 15
    assert walks(commands, 100) == []


def test_bulk_calls_move_a_bounded_number_in_each_script(client, letters):
    bury(client, numbered(20_000))
    letters.delete_all(where=lambda letter: False)

    commands = commands_for(client, lambda: letters.send_back_all(batch_size=500))
    assert calls(commands)["RPUSH"] == calls(commands)["ZREM"] == 40
    assert walks(commands, 500) == []
    assert client.llen("greenq:default") == 20_000

    bury(client, numbered(20_000))
    commands = commands_for(client, lambda: letters.delete_all(batch_size=500))
    assert calls(commands)["ZREM"] == 40
    assert walks(commands, 500) == []
    assert client.exists(*KEYS) == 0


def test_what_is_sent_back_cannot_die_in_the_millisecond_that_a_bulk_call_takes_for_its_beginning(client, letters):
    bury(client, numbered(1))

    for _ in range(50):
        mark = int(letters._now())
        seconds, microseconds = client.time()
        assert seconds * 1000 + microseconds // 1000 > mark


# -- letters that are not like greenq's own


@pytest.mark.parametrize("oldest_first", [True, False])
def test_letters_of_one_millisecond_are_paged_in_the_order_of_their_ids(client, letters, oldest_first):
    strange = [*(f"{number:x}Zz~é%".encode() for number in range(10)), b"\xff\0", b" ", b"!-3"]
    ids = sorted([*(id.encode() for id in numbered(20)), *strange])
    bury(client, ids)

    seen, after = [], None
    while True:
        (letter,), after = letters.page(after, 1, oldest_first=oldest_first)
        seen.append(letter.id)
        letters.delete(letter.id)  # the place of a letter that is gone is found as well
        if after is None:
            break

    assert [unquote_to_bytes(id) for id in seen] == (ids if oldest_first else ids[::-1])
    assert letters.count() == 0


@pytest.mark.parametrize("id", [b"a uuid", b"\xff\0\r\n", b"%41", b"", "é!-5".encode(), b"x" * 10_000], ids=repr)
def test_a_letter_of_any_id_can_be_looked_at_sent_back_and_deleted(client, letters, consumer, id):
    bury(client, [id])
    (letter,) = letters.page().letters
    assert letter.id.isascii()
    assert letters.get(letter.id) == letter

    assert letters.send_back(letter.id) == 1

    again = take_one(consumer)
    assert again.args == ("a",)
    consumer.complete(nacks([again]))
    (letter,) = letters.page().letters
    assert letters.delete(letter.id) == 1
    assert client.exists(*KEYS) == 0


def test_an_id_that_is_sent_back_keeps_its_priority_and_whether_its_payload_was_measured():
    assert next_id(b"0123456789ab~00000000")[12] == "~"
    assert next_id(b"0123456789ab~00000000!-5").endswith("!-5")
    assert next_id(b"somebody else's!7").endswith("!7")
    assert next_id(b"somebody else's")[12] != "~"
    assert next_id(next_id(b"somebody else's").encode())[12] != "~"
    assert next_id(b"\xff") != next_id(b"\xff")


def test_a_long_payload_of_somebody_elses_is_still_not_read_after_it_was_sent_back(client, letters, consumer):
    bury(client, ["somebody else's"], payload=b"x" * (MAX_MESSAGE_BYTES + 1))
    (letter,) = letters.page().letters
    assert (letter.payload, letter.size) == (None, MAX_MESSAGE_BYTES + 1)

    letters.send_back_all()

    again = take_one(consumer)
    assert isinstance(again, Undecodable)
    assert again.payload == b""


def test_a_letter_whose_payload_is_gone_is_listed_with_its_reason_and_stays_until_it_is_deleted(client, letters):
    bury(client, numbered(3))
    client.hdel(KEYS[1], numbered(3)[1])

    _, gone, _ = letters.page().letters
    assert (gone.payload, gone.size, gone.message, gone.reason) == (None, 0, None, "no good")
    assert letters.send_back(gone.id) == 0
    assert letters.send_back_all() == 2
    assert [letter.id for letter in letters.each()] == [gone.id]

    assert letters.delete_all() == 1
    assert client.exists(*KEYS) == 0


def test_a_letter_tells_how_often_its_message_was_taken_back(broker, client, letters, consumer):
    broker.enqueue(message("a"))
    take_one(consumer)
    broker.take_back(broker.worker_id)
    again = take_one(consumer)

    consumer.complete(nacks([again]))

    (letter,) = letters.page().letters
    assert letter.deliveries == 1
    letters.send_back_all()
    assert client.exists(*KEYS) == 0
    assert take_one(consumer).deliveries == 0


# -- answers that are lost, and callers


@pytest.mark.parametrize("call", ["send_back_all", "delete_all"])
def test_a_bulk_call_whose_answer_was_lost_can_be_repeated(broker, client, letters, monkeypatch, call):
    bury(client, numbered(100))
    scripts = []
    run = Link.call

    def lose_the_third(self, script, keys, args):
        answer = run(self, script, keys, args)
        if script.name in ("send_back", "delete_dead"):
            scripts.append(script.name)
            if len(scripts) == 3:
                raise ConnectionClosed("The answer was lost")
        return answer

    monkeypatch.setattr(Link, "call", lose_the_third)
    with pytest.raises(ConnectionClosed):
        getattr(letters, call)(batch_size=10)

    assert letters.count() == 70
    assert getattr(letters, call)(batch_size=10) == 70
    assert client.llen("greenq:default") == (100 if call == "send_back_all" else 0)


@pytest.fixture
def fill(client):
    """Fills the server's memory until the test ends."""
    yield lambda: client.config_set("maxmemory", 1)
    client.config_set("maxmemory", 0)


def test_letters_can_be_looked_at_and_deleted_on_a_full_server_and_stay_if_they_cannot_be_sent_back(
    broker, client, letters, fill
):
    bury(client, numbered(10))
    fill()

    with pytest.raises(ConnectionFailed, match="refused, so nothing was stored"):
        letters.send_back_all()
    assert len(letters.page().letters) == 10
    assert letters.delete(letters.page().letters[0].id) == 1
    assert letters.delete_all() == 9
    assert broker.queue_counts("default") == (0, 0, 0, 0)


def test_a_full_server_refuses_what_is_enqueued_and_takes_a_message_that_dies(broker, consumer, letters, fill):
    broker.enqueue(message("a"))
    verdicts = nacks(take(consumer))
    fill()

    with pytest.raises(ConnectionFailed, match="refused, so nothing was stored"):
        broker.enqueue(message("b"))
    assert consumer.complete(verdicts) == []
    assert broker.queue_counts("default") == (0, 0, 0, 1)


SEND_ALL_BACK = """
    import sys
    from greenq.brokers.redis import RedisBroker
    RedisBroker(url=sys.argv[1], middleware=[]).dead_letters_of("default").send_back_all(batch_size=5, on_batch=print)
    print("done")
"""


def test_a_process_that_is_killed_while_it_sends_back_loses_and_doubles_nothing(server, broker, client, letters):
    bury(client, numbered(20_000))
    with running(SEND_ALL_BACK, server.url) as script:
        for _ in range(3):
            script.line()
        os.kill(script.pid, signal.SIGKILL)
        script.process.wait(PATIENCE_S)

    sent = client.llen("greenq:default")
    assert 15 <= sent < 20_000
    assert letters.count() == 20_000 - sent
    assert client.hlen("greenq:default.msgs") == sent
    assert letters.send_back_all() == 20_000 - sent
    assert client.llen("greenq:default") == client.hlen("greenq:default.msgs") == 20_000


def test_all_calls_work_on_a_cluster():
    with redis_server(cluster_enabled="yes") as server:
        server.client().execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        until(lambda: server.client().execute_command("CLUSTER INFO")["cluster_state"] == "ok")
        client = redis.RedisCluster(host="127.0.0.1", port=server.port)
        broker = RedisBroker(client=client, middleware=[])
        broker.declare_queue("default")
        consumer = consume(broker)
        broker.enqueue_many([message(number) for number in range(6)])
        consumer.complete(nacks(take(consumer, 6), "no good"))
        letters = broker.dead_letters_of("default")

        page, after = letters.page(limit=4)
        assert names(letter.message for letter in [*page, *letters.page(after).letters]) == [5, 4, 3, 2, 1, 0]
        assert letters.get(page[0].id) == page[0]
        assert letters.send_back(page[0].id) == letters.delete(page[1].id) == 1
        assert letters.send_back_all(where=lambda letter: letter.message.args[0] < 2) == 2
        assert letters.delete_all() == 2
        assert broker.queue_counts("default") == (3, 0, 0, 0)
        consumer.close()
        broker.close()
        client.close()
