"""The Redis broker on a cluster: slots that move, nodes that go and come back.

That it does all that a broker does is in contract/. Runs in both worlds.
"""

from __future__ import annotations

import signal
import threading

import pytest

import greenq
from greenq.brokers.redis import RedisBroker, cluster
from greenq.brokers.redis.failures import REDIRECTIONS
from greenq.errors import ConnectionError, ConnectionFailed
from greenq.verdict import Action, Verdict
from tests.contract.fetching import acks, message, nacks, names, requeues, take
from tests.support.brokers import consume, counts, opening, send
from tests.support.redis_cluster import SlotMove, redis_cluster, shared_cluster
from tests.support.redis_tls import documented_rules
from tests.support.waiting import PATIENCE_S, beside, until

QUEUE = "{greenq:default}"


@pytest.fixture
def servers():
    servers = shared_cluster()
    servers.flush()
    return servers


@pytest.fixture
def open_broker(servers):
    """Makes brokers, each as if in a process of its own; closes them after the test."""
    with opening(lambda of=servers, **options: RedisBroker(client=of.client(), **options)) as open_broker:
        yield open_broker


@pytest.fixture
def broker(open_broker):
    return open_broker()


@pytest.fixture
def consumer(broker):
    return consume(broker)


@pytest.fixture
def no_patience(monkeypatch):
    monkeypatch.setattr(cluster, "MOVE_PATIENCE_S", 0.1)


# -- queues in slots


def test_queues_are_spread_over_the_nodes(servers, broker):
    for number in range(30):
        broker.declare_queue(f"queue{number}")
        broker.enqueue(message(number, queue_name=f"queue{number}"))

    assert all(node.admin.dbsize() for node in servers.masters)
    assert all(counts(broker, f"queue{number}") == (1, 0, 0) for number in range(30))


def test_what_follows_on_a_queue_of_another_node_is_stored(broker, consumer):
    for number in range(10):
        broker.declare_queue(f"other{number}")
    send(broker, "first")
    (first,) = take(consumer)
    follow_ups = [broker.prepare(message(number, queue_name=f"other{number}")) for number in range(10)]

    assert list(consumer.complete([Verdict(Action.ACK, first, follow_ups=follow_ups)])) == []

    assert [counts(broker, f"other{number}") for number in range(10)] == [(1, 0, 0)] * 10
    assert counts(broker) == (0, 0, 0)


# -- slots that move


def test_a_queue_is_used_on_after_its_slot_has_moved(servers, broker, consumer):
    send(broker, 1, 2, 3)
    held = take(consumer, 2)
    move = SlotMove(servers, QUEUE)

    move.run()

    send(broker, 4)
    assert list(consumer.complete([*acks(held[:1]), *requeues(held[1:])])) == []
    assert names(take(consumer, 3)) == [2, 3, 4]
    assert move.source.admin.dbsize() == 0


def test_only_the_first_script_after_a_move_is_sent_to_the_wrong_node(servers, broker):
    send(broker, 1)
    move = SlotMove(servers, QUEUE)
    move.run()
    for node in servers.masters:
        node.admin.config_resetstat()

    send(broker, 2)
    send(broker, 3)

    assert rejected(move.source) == 1
    assert counts(broker) == (3, 0, 0)


@pytest.mark.parametrize("moved", [[], [QUEUE], "all"], ids=["no key", "some keys", "all keys"])
def test_a_script_waits_until_its_slot_has_been_moved(servers, broker, moved):
    send(broker, 1)
    send(broker, "prior", broker_priority=1)
    move = SlotMove(servers, QUEUE)
    move.begin()
    if moved:
        move.move_keys(*([] if moved == "all" else moved))

    with beside(send, broker, 2):
        until(lambda: rejected(move.source, move.target) > 0)
        move.move_keys()
        move.end()

    assert counts(broker) == (3, 0, 0)


def rejected(*nodes):
    """How many scripts these nodes refused."""
    stats = [node.admin.info("commandstats").get("cmdstat_evalsha", {}) for node in nodes]
    return sum(each.get("rejected_calls", 0) for each in stats)


@pytest.mark.usefixtures("no_patience")
@pytest.mark.parametrize("has_keys", [True, False], ids=["TRYAGAIN", "ASK"])
def test_a_script_whose_slot_is_being_moved_for_long_says_that_nothing_was_stored(servers, open_broker, has_keys):
    broker = open_broker()
    if has_keys:
        send(broker, 1)
    move = SlotMove(servers, QUEUE)
    move.begin()

    with pytest.raises(ConnectionFailed, match="nothing was stored"):
        send(broker, 2)

    move.move_keys()
    move.end()
    assert counts(broker) == (int(has_keys), 0, 0)


@pytest.mark.usefixtures("no_patience")
def test_no_script_is_broken_off_in_the_middle_while_its_slot_is_moved(servers, open_broker):
    # All keys that the script names exist on the source; the list of the priority that the
    # retry asks for does not, and neither do those that it empties on its way.
    broker = open_broker()
    consumer = consume(broker)
    send(broker, "dead", "lost", "first", "last")
    consumer.complete(nacks(take(consumer), "no good"))
    lost = open_broker().consume("default", timeout=PATIENCE_S * 1000)
    take(lost)
    broker.take_back(lost._attachment.membership.worker_id)
    send(broker, "prior", broker_priority=1)
    broker.enqueue(message("delayed"), delay=60_000)
    (prior,) = take(consumer)
    send(broker, "low", broker_priority=-1)
    follow_up = broker.prepare(message("retry", broker_priority=7))
    verdict = Verdict(Action.ACK, prior, follow_ups=[follow_up])
    before = counts(broker)
    move = SlotMove(servers, QUEUE)
    move.begin()

    with pytest.raises(ConnectionFailed, match="nothing was stored"):
        consumer.complete([verdict])

    move.move_keys()
    move.end()
    assert counts(broker) == before
    assert list(consumer.complete([verdict])) == []
    assert names(take(consumer, 5)) == ["retry", "lost", "first", "last", "low"]


@pytest.mark.usefixtures("no_patience")
def test_what_a_dead_worker_had_on_a_node_that_refuses_holds_up_no_queue_of_another(servers, open_broker):
    other = next(node for node in servers.masters if node is not servers.master_of(QUEUE))
    queues = ["default", queue_on(servers, other)]
    broker, lost = open_broker(), open_broker()
    for queue_name in queues:
        broker.declare_queue(queue_name)
        lost.declare_queue(queue_name)
        broker.enqueue(message(queue_name, queue_name=queue_name))
        take(lost.consume(queue_name, timeout=PATIENCE_S * 1000))
    move = SlotMove(servers, QUEUE)
    move.begin()

    with pytest.raises(ConnectionFailed):
        broker.take_back(lost.worker_id)

    assert broker.queue_counts(queues[1]).ready == 1
    move.move_keys()
    move.end()
    assert broker.take_back(lost.worker_id) == 1
    assert broker.queue_counts("default").ready == 1


def test_a_consumer_that_waits_goes_on_where_its_queue_has_moved(servers, broker, consumer):
    assert consumer.fetch(1) == []
    move = SlotMove(servers, QUEUE)
    got = []

    with beside(lambda: got.extend(take(consumer))):
        until(lambda: is_waited_on(move.source))
        move.run()
        until(lambda: is_waited_on(move.target))
        send(broker, "there")

    assert names(got) == ["there"]


def test_a_consumer_begins_to_wait_while_its_queue_is_moved(servers, broker, consumer):
    assert consumer.fetch(1) == []
    move = SlotMove(servers, QUEUE)
    move.begin()
    got = []

    with beside(lambda: got.extend(take(consumer))):
        until(lambda: rejected(move.source, move.target) > 0)
        move.move_keys()
        move.end()
        send(broker, "there")

    assert names(got) == ["there"]


def is_waited_on(node):
    return any(each["cmd"] == "blmove" for each in node.admin.client_list())


def test_a_renewal_while_a_slot_is_moved_ends_no_wait(no_patience, servers, broker, consumer):
    membership = broker._attachment.membership
    membership._keeper.stop()
    membership._own = broker._attachment.links  # not the keeper's, whose thread may still be at it
    interrupted = []
    (wait,) = membership.lease("default").waits
    wait.interrupt = lambda: interrupted.append(1)
    move = SlotMove(servers, QUEUE)
    move.begin()
    move.move_keys(f"{QUEUE}~workers")  # so that the keys that are renewed are on two nodes

    with pytest.raises(ConnectionError) as raised:
        membership._renew()

    del wait.interrupt
    move.move_keys()
    move.end()
    assert isinstance(raised.value.__cause__, REDIRECTIONS)
    assert interrupted == []
    send(broker, 1)
    assert names(take(consumer)) == [1]


def test_a_load_loses_nothing_while_its_slot_moves_to_and_fro(servers, open_broker, caplog):
    broker = open_broker()
    ran = []

    @greenq.actor(broker=broker)
    def work(number):
        ran.append(number)

    worker = greenq.Worker(broker, worker_threads=4)
    worker.start()
    stop = threading.Event()
    sent = []

    def produce():
        while not stop.is_set():
            work.send(len(sent))
            sent.append(len(sent))

    with beside(produce):
        try:
            for _ in range(10):
                done = len(ran)
                SlotMove(servers, QUEUE).run()
                until(lambda done=done: len(ran) > done)
        finally:
            stop.set()
    broker.join("default", timeout=PATIENCE_S * 1000)
    worker.stop()

    assert sorted(ran) == sent
    assert not [record for record in caplog.records if record.levelname == "CRITICAL"]


# -- nodes that go and come back


@pytest.fixture
def fragile():
    """A cluster of its own, because a test ends a node of it."""
    with redis_cluster(replicas=1, appendonly="yes", cluster_require_full_coverage="no") as servers:
        yield servers


def queue_on(servers, node):
    """The name of a queue that is on a node."""
    return next(
        name for name in (f"queue{number}" for number in range(1000)) if servers.master_of(f"{{greenq:{name}}}") is node
    )


def test_a_dead_node_costs_only_its_own_queues_and_its_replica_takes_over(fragile, open_broker):
    first, other = fragile.masters[:2]
    here, there = queue_on(fragile, first), queue_on(fragile, other)
    broker = open_broker(fragile)
    for queue_name in (here, there):
        broker.declare_queue(queue_name)
        broker.enqueue(message("before", queue_name=queue_name))
    consumer = broker.consume(here, timeout=PATIENCE_S * 1000)
    assert names(take(consumer)) == ["before"]
    until(
        lambda: (
            fragile.replicas[0].admin.info("replication")["slave_repl_offset"]
            == first.admin.info("replication")["master_repl_offset"]
        )
    )

    first.stop(signal.SIGKILL)

    stored = [
        name for name in ["while it is dead"] if is_stored(broker, name, here)
    ]  # by the replica, if that was quick
    broker.enqueue(message("at once", queue_name=there))
    assert counts(broker, there) == (2, 0, 0)
    until(lambda: is_stored(broker, "after", here))
    stored.append("after")
    assert counts(broker, here) == (1 + len(stored), 0, 0)
    assert names(take(broker.consume(here, timeout=PATIENCE_S * 1000), len(stored))) == stored

    first.start()  # comes back as a replica
    until(lambda: first.admin.info("replication")["role"] == "slave")
    broker.enqueue(message("later", queue_name=here))
    assert counts(broker, here) == (2 + len(stored), 0, 0)


def is_stored(broker, name, queue_name):
    try:
        broker.enqueue(message(name, queue_name=queue_name))
    except ConnectionError:
        return False
    return True


def test_a_node_that_restarts_has_all_that_was_confirmed(fragile, open_broker):
    node = fragile.masters[1]
    queue_name = queue_on(fragile, node)
    broker = open_broker(fragile)
    broker.declare_queue(queue_name)
    consumer = broker.consume(queue_name, timeout=PATIENCE_S * 1000)
    for number in range(10):
        broker.enqueue(message(number, queue_name=queue_name))
    held = take(consumer, 3)

    node.stop(signal.SIGTERM)
    node.start()

    until(lambda: is_stored(broker, 10, queue_name))
    assert list(consumer.complete(acks(held))) == []
    assert names(take(consumer, 8)) == list(range(3, 11))


def test_leases_on_other_nodes_are_kept_while_a_node_is_away(fragile, open_broker):
    lease_ms = 1000
    broker, rival = (open_broker(fragile, heartbeat_timeout=lease_ms) for _ in range(2))
    away, there = queue_on(fragile, fragile.masters[1]), queue_on(fragile, fragile.masters[2])
    for each in (broker, rival):
        for queue_name in (away, there):
            each.declare_queue(queue_name)
    broker.enqueue(message("held", queue_name=there))
    consumers = [broker.consume(queue_name, timeout=PATIENCE_S * 1000) for queue_name in (away, there)]
    held = take(consumers[1])
    idle = rival.consume(there, timeout=3 * lease_ms)

    fragile.masters[1].stop(signal.SIGKILL)

    assert [idle.wait() and idle.fetch(1) for _ in range(2)] == [[], False]
    assert list(consumers[1].complete(acks(held))) == []


# -- rights


def test_the_documented_rights_are_enough_on_a_cluster(servers):
    rules = documented_rules()
    for node in servers.masters:
        node.admin.execute_command("ACL", "SETUSER", "greenq", *rules.split())
    client = servers.client(username="greenq", password="a-long-password")
    broker = RedisBroker(client=client, middleware=[])
    broker.declare_queue("default")
    try:
        broker.connect()
        consumer = consume(broker)
        send(broker, 1)
        assert list(consumer.complete(acks(take(consumer)))) == []
        SlotMove(servers, QUEUE).run()
        send(broker, 2)
        assert names(take(consumer)) == [2]
    finally:
        broker.close()
        for node in servers.masters:
            node.admin.execute_command("ACL", "DELUSER", "greenq")


# -- at the start


def test_the_start_looks_at_every_master(servers, broker, caplog):
    servers.masters[2].admin.config_set("maxmemory-policy", "allkeys-lru")
    try:
        broker.connect()
    finally:
        servers.masters[2].admin.config_set("maxmemory-policy", "noeviction")

    (warning,) = [record.getMessage() for record in caplog.records if "noeviction" in record.message]
    assert f":{servers.masters[2].port} " in warning


def test_a_node_that_is_away_does_not_keep_a_worker_from_starting(fragile, open_broker, caplog):
    broker = open_broker(fragile)
    fragile.masters[1].stop(signal.SIGKILL)

    broker.connect()

    assert f"127.0.0.1:{fragile.masters[1].port}" in caplog.text


def test_a_plain_client_for_a_node_of_a_cluster_is_refused_with_the_remedy(servers):
    broker = RedisBroker(url=servers.masters[0].url, middleware=[])

    with pytest.raises(ConnectionFailed, match="RedisCluster"):
        broker.connect()
