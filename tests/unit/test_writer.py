"""Values that are stored at the same time are stored together."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import greenq
from greenq.stores.redis.writer import Value, Writer
from tests.support.processes import output_of
from tests.support.waiting import happens, until


class Server:
    """Where values are stored: slowly at first, so that the others gather."""

    def __init__(self, refuses=None):
        self.portions, self.refuses = [], refuses
        self.is_reached, self.go_on = threading.Event(), threading.Event()
        self.writer = Writer(self.write)

    def write(self, values):
        self.portions.append([value.key for value in values])
        if len(self.portions) == 1:
            self.is_reached.set()
            happens(self.go_on)
        if self.refuses:
            self.refuses([value.key for value in values])

    def put_all(self, count):
        """Have one put a value, and while that is under way all others; return what each of them got."""
        with ThreadPoolExecutor(count) as pool:
            first = pool.submit(self.writer.put, Value("0", b"", 1))
            happens(self.is_reached)
            rest = [pool.submit(self.writer.put, Value(str(number), b"", 1)) for number in range(1, count)]
            until(lambda: len(self.writer._pending) == count - 1)
            self.go_on.set()
            return [each.exception() for each in (first, *rest)]


def test_one_value_is_stored_by_itself_at_once():
    server = Server()
    server.go_on.set()

    server.writer.put(Value("0", b"", 1))

    assert server.portions == [["0"]]


def test_what_gathers_while_one_is_stored_is_stored_in_one_step():
    server = Server()

    assert server.put_all(20) == [None] * 20

    assert server.portions[0] == ["0"]
    assert sorted(map(int, server.portions[1])) == list(range(1, 20))
    assert len(server.portions) == 2


def test_much_that_gathers_is_stored_in_portions(monkeypatch):
    monkeypatch.setattr("greenq.stores.redis.writer._MOST", 5)
    server = Server()

    assert server.put_all(13) == [None] * 13

    assert [len(each) for each in server.portions] == [1, 5, 5, 2]


def test_an_outage_is_an_error_for_each_and_nobody_repeats_by_himself():
    def refuses(keys):
        raise greenq.ConnectionClosed("away")

    server = Server(refuses)

    assert [type(each) for each in server.put_all(20)] == [greenq.ConnectionClosed] * 20
    assert len(server.portions) == 2


def test_a_value_that_is_refused_costs_the_others_nothing():
    def refuses(keys):
        if "7" in keys:
            raise ValueError("seven")

    errors = Server(refuses).put_all(10)

    assert [type(each) for each in errors] == [type(None)] * 7 + [ValueError] + [type(None)] * 2


INTERRUPTED = """
import gevent, sys
from greenq.stores.redis.writer import Value, Writer
portions = []
def write(values):
    portions.append([value.key for value in values])
    gevent.sleep(0.05)
writer = Writer(write)
puts = [gevent.spawn(writer.put, Value(str(number), b"", 1)) for number in range(6)]
gevent.sleep(0.01)
puts[int(sys.argv[1])].kill()
gevent.joinall(puts, timeout=10)
print([each.successful() for each in puts].count(True))
print(puts[int(sys.argv[1])].successful() and type(puts[int(sys.argv[1])].value).__name__)
writer.put(Value("after", b"", 1))
print(sorted(set(sum(portions, []))))
"""


@pytest.mark.parametrize("killed", [0, 1, 2], ids=["the one that writes", "the one that writes next", "another"])
def test_one_that_is_killed_holds_nobody_up(killed):
    lines = output_of(INTERRUPTED, killed, patched=True)

    assert lines[0] == "6"  # a kill counts as success; the others stored theirs
    assert lines[1] == "GreenletExit"
    assert {"3", "4", "5", "after"} <= set(eval(lines[2]))


TAKES_OVER = """
import gevent
from greenq.stores.redis import writer
writer._LONGEST_WAIT_S = 0.1
def write(values):
    portions.append([value.key for value in values])
    if values[0].key == "stuck":
        gevent.sleep(3600)
portions = []
one = writer.Writer(write)
gevent.spawn(one.put, writer.Value("stuck", b"", 1))
gevent.sleep(0)
one.put(writer.Value("next", b"", 1))
print(portions)
"""


def test_one_that_does_not_come_back_holds_nobody_up_for_ever():
    assert output_of(TAKES_OVER, patched=True) == ["[['stuck'], ['next']]"]
