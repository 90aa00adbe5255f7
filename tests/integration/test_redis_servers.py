"""The Redis broker on servers that end, load, forget, refuse or are full; what it says at the start.

Runs in both worlds.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

import greenq
from greenq.brokers.redis import RedisBroker
from greenq.errors import BrokerUnusable, ConnectionError, ConnectionFailed
from greenq.verdict import Action, Verdict
from tests.contract.fetching import acks, message, nacks, names, requeues, take
from tests.support.brokers import consume, counts, opening, send
from tests.support.processes import running
from tests.support.redis_server import redis_server, shared_server
from tests.support.redis_tls import PASSWORD, TlsServer, documented_rules, shared_tls_server
from tests.support.waiting import PATIENCE_S, beside, until

SCRIPTS = Path(greenq.__file__).parent / "brokers" / "redis" / "scripts"


@pytest.fixture
def open_broker():
    """Makes brokers; closes them after the test."""
    with opening(lambda url=None, **options: RedisBroker(url=url, **options)) as open_broker:
        yield open_broker


def lines(caplog, text):
    return [record.getMessage() for record in caplog.records if text in record.getMessage()]


def fetch(consumer, count):
    """Fetch as the worker does, again and again until it works."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return consumer.fetch(count)
        except ConnectionError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


# -- servers that end


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_a_server_that_ends_in_the_middle_of_a_load_loses_nothing_that_was_confirmed(open_broker, caplog, signum):
    caplog.set_level("INFO")
    with redis_server(appendonly="yes", appendfsync="always") as server:
        broker = open_broker(server.url)
        confirmed, ran = [], set()
        stop = threading.Event()

        @greenq.actor(broker=broker)
        def work(number):
            ran.add(number)

        def produce():
            number = 0
            while not stop.is_set():
                number += 1
                try:
                    work.send(number)
                except ConnectionError:
                    time.sleep(0.01)
                else:
                    confirmed.append(number)

        worker = greenq.Worker(broker, worker_threads=4)
        worker.start()
        with beside(produce):
            try:
                for outages in (1, 2, 3):
                    done = len(ran)
                    until(lambda done=done: len(ran) > done + 100)
                    server.stop(signum)
                    server.start()
                    until(lambda outages=outages: len(lines(caplog, "The broker is back")) == outages)
            finally:
                stop.set()
        broker.join("default", timeout=PATIENCE_S * 1000)
        worker.stop()

    assert set(confirmed) <= ran
    assert len(lines(caplog, "The broker is away")) == 3


def test_scripts_that_are_flushed_all_the_time_cost_a_load_nothing(open_broker):
    server = shared_server()
    server.client().flushall()
    broker = open_broker(server.url)
    ran = []

    @greenq.actor(broker=broker)
    def work(number):
        ran.append(number)

    worker = greenq.Worker(broker, worker_threads=4)
    worker.start()
    client = server.client()
    for number in range(500):
        client.script_flush()
        work.send(number)
    broker.join("default", timeout=PATIENCE_S * 1000)
    worker.stop()

    assert sorted(ran) == list(range(500))


def test_a_retry_that_a_crash_undid_runs_all_the_same(open_broker):
    # The files are as of a moment before the verdict, as after a crash without appendfsync always.
    with redis_server() as server:
        broker = open_broker(server.url)
        consumer = consume(broker)
        send(broker, "to be retried", "held")
        first, held = take(consumer, 2)
        server.client().save()
        retry = Verdict(Action.ACK, first, follow_ups=[broker.prepare(message("retry"))])
        assert list(consumer.complete([retry])) == []

        server.stop(signal.SIGKILL)
        server.start()

        again = fetch(consumer, 10)
        assert names(again) == ["to be retried"]
        assert [each.deliveries for each in again] == [0]
        assert list(consumer.complete(acks([held, *again]))) == []
        assert counts(broker) == (0, 0, 0)


def test_a_server_that_loads_its_data_is_an_outage_and_no_more(open_broker, caplog):
    caplog.set_level("INFO")
    with redis_server(appendonly="yes", key_load_delay="0", enable_debug_command="local") as server:
        broker = open_broker(server.url)
        client = server.client()
        ran = threading.Event()

        @greenq.actor(broker=broker)
        def work():
            ran.set()

        worker = greenq.Worker(broker, worker_threads=1)
        worker.start()
        client.execute_command("DEBUG", "POPULATE", 3000)
        client.bgrewriteaof()
        until(lambda: client.info("persistence")["aof_rewrite_in_progress"] == 0)
        work.send()
        assert ran.wait(PATIENCE_S)
        server.stop()
        server._settings |= {"key_load_delay": "10000", "loading_process_events_interval_bytes": "1024"}
        server.start(waits=False)
        refusals = []
        until(lambda: is_refused_as_loading(broker, refusals))
        with pytest.raises(ConnectionFailed, match=r"loading"):
            open_broker(server.url).connect()
        ran.clear()
        client.config_set("key-load-delay", 0)
        server.wait_until_ready()

        until(lambda: is_sent(work))
        assert ran.wait(PATIENCE_S)
        worker.stop()

    assert all("nothing was stored" in each for each in refusals if "loading" in each)
    assert len(lines(caplog, "The broker is away")) == 1
    assert len(lines(caplog, "The broker is back")) == 1


def is_refused_as_loading(broker, refusals):
    try:
        send(broker, "no")
    except ConnectionError as error:
        refusals.append(str(error))
        return "loading" in str(error)
    raise AssertionError("it did not load for long enough")


def is_sent(actor):
    try:
        actor.send()
    except ConnectionError:
        return False
    return True


def test_a_server_that_is_full_refuses_messages_and_can_be_emptied(open_broker):
    lease_ms = 300
    with redis_server(maxmemory="8mb") as server:
        broker = open_broker(server.url, heartbeat_timeout=lease_ms)
        until(lambda: is_full(broker))
        stored = counts(broker)[0]
        server.client().config_set("maxmemory", "1mb")  # so that no rest of memory helps
        consumer = consume(broker)

        taken = take(consumer, stored)
        time.sleep(2 * lease_ms / 1000)  # it can only be kept by renewing it
        retry = Verdict(Action.ACK, taken[0], follow_ups=[broker.prepare(message("retry"))])
        assert list(consumer.complete([retry, *nacks(taken[1:2], "no good"), *requeues(taken[2:3])])) == []
        assert list(consumer.complete(acks(taken[3:]))) == []

        assert stored > 10
        assert names(take(consumer, 2)) == ["x" * 100_000, "retry"]
        assert counts(broker) == (2, 0, 1)


def is_full(broker):
    try:
        send(broker, "x" * 100_000)
    except ConnectionFailed as error:
        return "nothing was stored" in str(error) and "maxmemory" in str(error)
    return False


# -- servers that outlive nothing


HOLD = """
    from tests.support.redis_server import RedisServer
    server = RedisServer()
    print(server.process.pid, server.folder)
    input()
"""


def test_a_server_ends_with_the_tests_even_if_they_are_killed():
    with running(HOLD) as tests:
        pid, folder = tests.line().split()
        os.kill(int(pid), 0)

        tests.kill()

        until(lambda: not is_running(int(pid)))
    subprocess.run(["rm", "-r", folder], check=True)


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


# -- addresses


def test_a_socket_of_the_file_system_is_an_address(open_broker, tmp_path):
    with redis_server(unixsocket=tmp_path / "redis.sock") as server:
        broker = open_broker(f"unix://{tmp_path}/redis.sock")
        broker.connect()
        consumer = consume(broker)
        send(broker, 1)

        assert names(take(consumer)) == [1]
        assert str(broker) == f"RedisBroker({tmp_path}/redis.sock, namespace='greenq')"
        assert server.client().exists("greenq:default.msgs") == 1


def test_a_machine_that_vanishes_is_noticed_by_its_silence(open_broker):
    broker = open_broker(shared_server().url)
    send(broker, 1)

    (link,) = broker._attachment.links._free

    sock = link._connection._sock
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    probes = [
        sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_KEEP{name}")) for name in ("IDLE", "INTVL", "CNT")
    ]
    assert probes == [5, 2, 3]


# -- TLS and rights


def test_the_documented_rights_are_what_the_scripts_use_and_no_more():
    allowed = {each.removeprefix("+").upper() for each in documented_rules().split() if each.startswith("+")}
    in_scripts = {
        name
        for file in SCRIPTS.glob("*.lua")
        for name in re.findall(r"(?:redis\.call|call_many|push)\('(\w+)'", file.read_text())
    }
    # Those that push() and others are given by name are found by the same pattern.
    beside_scripts = {"EVAL", "EVALSHA", "BLMOVE", "INFO", "CONFIG|GET", "CLUSTER|SLOTS", "COMMAND"}

    assert in_scripts | beside_scripts == allowed


def test_a_wrong_password_is_told_without_the_password(open_broker):
    server = shared_tls_server()

    with pytest.raises(BrokerUnusable, match=r"invalid username-password.*Look at the user and the password") as raised:
        open_broker(server.url.replace(PASSWORD, "another-one")).connect()

    assert "another-one" not in str(raised.value)


def test_a_password_that_is_missing_is_asked_for(open_broker):
    server = shared_tls_server()

    with pytest.raises(BrokerUnusable, match="username= and password="):
        open_broker(re.sub("//.*@", "//", server.url)).connect()


def test_a_file_of_certificates_that_is_missing_is_named_as_a_cause(open_broker):
    server = shared_tls_server()

    with pytest.raises(ConnectionFailed, match=r"No such file or directory.*ssl_ca_certs"):
        open_broker(server.url + ".missing").connect()


def test_a_replica_refuses_messages_with_the_remedy(open_broker):
    with redis_server() as server:
        server.client().replicaof("127.0.0.1", server.port)  # of itself: it has a master, and takes no writes
        with pytest.raises(
            ConnectionFailed, match=r"read only replica\. Give the broker the master's address"
        ) as raised:
            send(open_broker(server.url), 1)

    assert "script" not in str(raised.value)


def test_a_port_where_no_redis_answers_cannot_be_used(open_broker):
    with running(WEB_SERVER) as web:
        broker = open_broker(f"redis://127.0.0.1:{web.line()}")

        with pytest.raises(BrokerUnusable, match=r"is no Redis, so nothing was stored:.*Look at the host and the port"):
            send(broker, 1)
        with pytest.raises(BrokerUnusable, match=r"is no Redis:.*Look at the host and the port"):
            broker.connect()


def test_a_certificate_of_an_unknown_authority_is_refused(open_broker):
    server = shared_tls_server()

    with pytest.raises(BrokerUnusable, match=r"CERTIFICATE_VERIFY_FAILED.*ssl_ca_certs=") as raised:
        open_broker(server.url.partition("?")[0]).connect()

    assert "stored" not in str(raised.value)  # at a start nobody wants to store anything


def test_a_certificate_for_another_host_is_refused_with_the_remedy(open_broker):
    server = TlsServer(bind="127.0.0.1 127.0.0.2")
    try:
        with pytest.raises(BrokerUnusable, match=r"not valid for '127\.0\.0\.2'.*Give the broker the host by a name"):
            open_broker(server.url.replace("@127.0.0.1", "@127.0.0.2")).connect()
    finally:
        server.end()


def test_a_user_without_the_right_to_store_is_told_that_nothing_was_stored(open_broker):
    server = TlsServer(rules="on >a-long-password ~greenq:* -@all +info +config|get")
    try:
        with pytest.raises(ConnectionFailed, match=r"nothing was stored.*permissions"):
            send(open_broker(server.url), 1)
    finally:
        server.end()


@pytest.mark.parametrize("missing", ["+rpush", "~greenq:*"])
def test_a_user_without_a_right_that_a_script_needs_is_told_that_nothing_is_enqueued(open_broker, missing):
    server, rules = shared_server(), documented_rules().replace(missing, "~greenq:default")
    server.client().flushall()
    server.client().execute_command("ACL", "SETUSER", "some", "reset", *rules.split())
    try:
        broker = open_broker(f"redis://some:a-long-password@127.0.0.1:{server.port}/0")
        with pytest.raises(BrokerUnusable, match=r"nothing was stored: .*(run this command|access|permissions)"):
            send(broker, 1)
        assert server.client().llen("greenq:default") == 0
    finally:
        server.client().execute_command("ACL", "DELUSER", "some")


def test_a_user_who_may_not_ask_about_the_server_can_use_it_and_is_told(open_broker, caplog):
    server = TlsServer(rules=documented_rules().replace("+info", "").replace("+config|get", ""))
    try:
        broker = open_broker(server.url)
        broker.connect()
        send(broker, 1)
    finally:
        server.end()

    (warning,) = caplog.records
    assert "+info" in warning.getMessage()
    assert warning.levelname == "WARNING"


def test_a_user_who_may_not_use_the_database_fails_the_start(open_broker):
    server = TlsServer(rules=documented_rules())
    try:
        with pytest.raises(BrokerUnusable, match=r"permissions.*select.*\+select"):
            open_broker(server.url.replace("/0?", "/3?")).connect()
    finally:
        server.end()


def test_a_user_with_the_right_to_select_can_use_another_database(open_broker):
    server = TlsServer(rules=documented_rules() + " +select")
    try:
        broker = open_broker(server.url.replace("/0?", "/3?"))
        broker.connect()
        send(broker, 1)
        assert names(take(consume(broker), 1)) == [1]
    finally:
        server.end()


def test_a_user_who_may_not_see_the_configuration_is_told_what_is_not_known(open_broker, caplog):
    caplog.set_level("INFO")
    server = TlsServer(rules=documented_rules().replace("+config|get", ""), save="3600 1")
    try:
        open_broker(server.url).connect()
    finally:
        server.end()

    (line,) = caplog.records
    assert "CONFIG GET save" in line.getMessage()
    assert line.levelname == "INFO"


# -- what the start says


@pytest.mark.parametrize(
    ("settings", "level", "text"),
    [
        ({"save": ""}, "WARNING", "writes nothing to disk.*appendonly"),
        ({"save": "3600 1"}, "INFO", "saves snapshots.*appendonly"),
    ],
    ids=["nothing", "snapshots"],
)
def test_a_server_that_keeps_less_than_everything_is_told(open_broker, caplog, settings, level, text):
    caplog.set_level("INFO")
    with redis_server(**settings) as server:
        open_broker(server.url).connect()

    (line,) = caplog.records
    assert line.levelname == level
    assert re.search(text, line.getMessage())


def test_nothing_is_said_of_a_server_that_keeps_everything(open_broker, caplog):
    caplog.set_level("INFO")
    with redis_server(appendonly="yes") as server:
        open_broker(server.url).connect()

    assert caplog.records == []


WEB_SERVER = """
    import socketserver
    class Answer(socketserver.StreamRequestHandler):
        def handle(self):
            self.rfile.readline()
            self.wfile.write(b"HTTP/1.1 400 Bad Request\\r\\n\\r\\n")
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answer) as server:
        print(server.server_address[1])
        server.serve_forever()
"""

OLD_SERVER = """
    import socketserver
    INFO = b"redis_version:6.0.16\\r\\nredis_mode:standalone\\r\\nrole:master\\r\\n"
    class Answer(socketserver.StreamRequestHandler):
        def handle(self):
            while True:
                count = self.rfile.readline()
                if not count:
                    return
                words = []
                for _ in range(int(count[1:])):
                    self.rfile.readline()
                    words.append(self.rfile.readline().strip().upper())
                if words[0] == b"INFO":
                    self.wfile.write(b"$%d\\r\\n%s\\r\\n" % (len(INFO), INFO))
                elif words[0] == b"CONFIG":
                    self.wfile.write(b"*2\\r\\n$4\\r\\nsave\\r\\n$0\\r\\n\\r\\n")
                else:
                    self.wfile.write(b"+OK\\r\\n")
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answer) as server:
        print(server.server_address[1])
        server.serve_forever()
"""


def test_a_server_that_is_too_old_fails_the_start(open_broker):
    with running(OLD_SERVER) as old:
        broker = open_broker(f"redis://127.0.0.1:{old.line()}")

        with pytest.raises(ConnectionFailed, match=r"version 6\.0\.16; greenq needs 6\.2 or newer"):
            broker.connect()
