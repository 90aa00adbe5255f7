"""Every example of the API's documents runs, with greenq in the place of dramatiq, on servers of the tests.

Where a document is wrong its example is corrected, and a comment says how. Those of the reference are written as at a
prompt, those of its page on brokers as programs.
"""

from __future__ import annotations

import doctest
import re
from textwrap import dedent

import pytest
import redis

import greenq as dramatiq
from greenq.brokers.rabbitmq import RabbitmqBroker
from greenq.brokers.redis import RedisBroker
from greenq.brokers.sqlite import SqliteBroker
from greenq.brokers.stub import StubBroker
from tests.support import rabbitmq_server
from tests.support.memcached_server import shared_memcached
from tests.support.redis_server import redis_server, shared_server


@pytest.fixture
def names():
    """What examples have at hand, and what they have made; brokers and backends are closed after the test."""
    names = {
        "dramatiq": dramatiq,
        "actor": dramatiq.actor,
        "GenericActor": dramatiq.GenericActor,
        "RedisBroker": RedisBroker,
        "RabbitmqBroker": RabbitmqBroker,
        "StubBroker": StubBroker,
    }
    yield names
    for made in names.values():
        if isinstance(made, dramatiq.Broker) or type(made).__name__.endswith("Backend"):
            made.close()


def run(example, names, **replaced):
    """Run an example; return what its expressions were, as a prompt would show them."""
    # The longer ones first, since "localhost:6379" has "localhost" in it.
    for text, other in sorted(replaced.items(), key=lambda pair: -len(pair[0])):
        example = example.replace(text, str(other))
    example = re.sub(r"\b(from|import) dramatiq\.", r"\1 greenq.", example)
    example = re.sub(r"\bimport dramatiq\b", "import greenq as dramatiq", example)
    example = re.sub(r"\bfrom dramatiq\b", "from greenq", example)
    if ">>>" not in example:
        exec(dedent(example), names)
        return []
    shown = []
    names["__builtins__"] = {**vars(__import__("builtins"))}
    for each in doctest.DocTestParser().get_examples(dedent(example)):
        try:
            value = eval(compile(each.source.strip(), "<example>", "eval"), names)
        except SyntaxError:
            exec(each.source, names)
        else:
            shown.append(value)
    return shown


@pytest.fixture
def stub(names):
    """A broker in memory is the global one."""
    broker = StubBroker(fail_fast_default=False)
    dramatiq.set_broker(broker)
    names["broker"] = broker
    return broker


@pytest.fixture
def work(names):
    """Runs what is in the queues of a broker, to the end."""
    workers = []

    def work(broker, queue_name="default"):
        worker = dramatiq.Worker(broker, worker_timeout=100)
        workers.append(worker)
        worker.start()
        broker.join(queue_name, timeout=20_000)
        worker.join()
        return worker

    yield work
    for worker in workers:
        worker.stop(5000)


# -- the reference: actors


def test_the_example_of_an_actor_runs(names, stub, work, capsys):
    add, called, message = run(
        """
        >>> import dramatiq

        >>> @dramatiq.actor
        ... def add(x, y):
        ...     print(x + y)
        ...
        >>> add
        Actor(<function add at 0x106c6d488>, queue_name='default', actor_name='add')

        >>> add(1, 2)
        3

        >>> add.send(1, 2)
        """,
        names,
    )
    work(stub)

    assert re.fullmatch(r"Actor\(<function add at 0x\w+>, queue_name='default', actor_name='add'\)", repr(add))
    assert called is None
    assert re.fullmatch(
        r"Message\(queue_name='default', actor_name='add', args=\(1, 2\), kwargs=\{\}, options=\{\}, "
        r"message_id='[0-9a-f-]{36}', message_timestamp=\d{13}\)",
        repr(message),
    )
    assert capsys.readouterr().out == "3\n3\n"


def test_the_example_of_composed_messages_runs(names, stub):
    names["add"] = dramatiq.actor(actor_name="add")(lambda *numbers: sum(numbers))

    (pipe,) = run(
        """
        >>> (add.message(1, 2) | add.message(3))
        pipeline([add(1, 2), add(3)])
        """,
        names,
    )

    assert repr(pipe) == "pipeline([add(1, 2), add(3)])"


def test_the_example_of_class_based_actors_runs(names, stub, work, capsys):
    run(
        """
        >>> class BaseTask(GenericActor):
        ...     class Meta:
        ...         abstract = True
        ...         queue_name = "tasks"
        ...         max_retries = 20
        ...
        ...     def get_task_name(self):
        ...         raise NotImplementedError
        ...
        ...     def perform(self):
        ...         print(f"Hello from {self.get_task_name()}!")

        >>> class FooTask(BaseTask):
        ...     def get_task_name(self):
        ...         return "Foo"

        >>> class BarTask(BaseTask):
        ...     def get_task_name(self):
        ...         return "Bar"

        >>> FooTask.send()
        >>> BarTask.send()
        """,
        names,
    )
    work(stub, "tasks")

    assert sorted(capsys.readouterr().out.splitlines()) == ["Hello from Bar!", "Hello from Foo!"]


# -- the reference: brokers


def test_the_examples_of_the_rabbitmq_broker_run(names, work):
    server = rabbitmq_server.shared_server()
    with server.vhost() as vhost:
        (by_host,) = run('>>> RabbitmqBroker(host="127.0.0.1", port=5672)', names, **{"5672": server.port})
        names["by_host"] = by_host
        by_host.connect()
        names["by_url"] = run(
            '>>> RabbitmqBroker(url="amqp://guest:guest@127.0.0.1:5672")',
            names,
            **{"amqp://guest:guest@127.0.0.1:5672": vhost.url},
        )[0]
        names["by_url"].connect()

        run('>>> broker = RabbitmqBroker(url="...", max_priority=5)', names, **{"...": vhost.url})
        broker = names["broker"]
        ran = []
        names["an_actor"] = dramatiq.actor(broker=broker, actor_name="an_actor")(ran.append)
        names["an_actor"].send("usual")
        # The example gives the actor no argument; this one shows which message it was.
        run(
            """
            >>> broker.enqueue(an_actor.message_with_options(
            ...    args=("urgent",), broker_priority=5,
            ... ))
            """,
            names,
        )
        run(
            """
            >>> an_actor.send_with_options(
            ...    args=("as urgent",), broker_priority=5,
            ... )
            """,
            names,
        )
        worker = dramatiq.Worker(broker, worker_threads=1)
        worker.start()
        broker.join("default", 1, timeout=20_000)
        worker.stop(5000)
        broker.close()
        names["by_url"].close()

    assert ran == ["urgent", "as urgent", "usual"]


def test_the_examples_of_the_redis_broker_run(names):
    with redis_server() as server:
        by_url = run(
            '>>> RedisBroker(url="redis://127.0.0.1:6379/0")', names, **{"redis://127.0.0.1:6379/0": server.url}
        )[0]
        by_url.connect()
        by_url.close()
        server.client().config_set("requirepass", "hunter2")
        (by_host,) = run(
            '>>> RedisBroker(host="127.0.0.1", port=6379, db=0, password="hunter2")', names, **{"6379": server.port}
        )
        by_host.connect()
        by_host.close()
        by_host.client.close()
        by_url.client.close()


# -- the reference: middleware


def test_the_example_of_exceptions_that_are_not_retried_runs(names, stub, work):
    run(
        """
        >>> @actor(throws=(RuntimeError,))
        ... def example():
        ...     raise RuntimeError("never retried")
        """,
        names,
    )
    names["example"].send()
    work(stub)

    (letter,) = stub.dead_letters
    assert "retries" not in letter.options


def test_the_example_of_the_current_message_runs(names, stub, work, capsys):
    # The middleware has to be added, which the example leaves out.
    stub.add_middleware(dramatiq.middleware.CurrentMessage())
    (message,) = run(
        """
        >>> import dramatiq
        >>> from dramatiq.middleware import CurrentMessage

        >>> @dramatiq.actor
        ... def example(x):
        ...     print(CurrentMessage.get_current_message())
        ...
        >>> example.send(1)
        """,
        names,
    )
    work(stub)

    assert capsys.readouterr().out == f"{message}\n"
    assert dramatiq.middleware.CurrentMessage.get_current_message() is None


# -- the reference: results


def test_the_examples_of_results_run_on_redis(names, stub, work):
    url = shared_server().url
    run(
        """
        >>> from dramatiq.results import Results
        >>> from dramatiq.results.backends import RedisBackend
        >>> backend = RedisBackend()
        >>> broker.add_middleware(Results(backend=backend))

        >>> @dramatiq.actor(store_results=True)
        ... def add(x, y):
        ...     return x + y

        >>> message = add.send(1, 2)
        """,
        names,
        **{"RedisBackend()": f"RedisBackend(url={url!r})"},
    )
    work(stub)
    (result,) = run(">>> message.get_result(backend=backend)", names)
    # With retries, which the example has, its failure would be known in a month; the document says so elsewhere.
    run(
        """
        >>> @dramatiq.actor(store_results=True, max_retries=0)
        ... def fail():
        ...     raise Exception("failed")

        >>> message = fail.send()
        """,
        names,
    )
    stub.join("default", timeout=20_000)
    with pytest.raises(dramatiq.results.ResultFailure) as failure:
        run(">>> message.get_result(backend=backend)", names)

    assert result == 3
    assert str(failure.value) == "actor raised Exception: failed"


# -- the reference: rate limits


def test_the_example_of_limits_on_memcached_runs(names):
    run(
        """
        >>> from dramatiq.rate_limits.backends import MemcachedBackend
        >>> backend = MemcachedBackend(servers=["127.0.0.1"], binary=True)
        """,
        names,
        **{"127.0.0.1": shared_memcached().address},
    )

    assert names["backend"].add("example", 1, 60_000) in (True, False)  # it is there


def test_the_examples_of_rate_limiters_run_on_redis(names, capsys):
    run(
        """
        >>> from dramatiq.rate_limits.backends import RedisBackend
        >>> from dramatiq.rate_limits import BucketRateLimiter, ConcurrentRateLimiter

        >>> backend = RedisBackend()
        >>> limiter = ConcurrentRateLimiter(backend, "distributed-mutex", limit=1)
        """,
        names,
        **{"RedisBackend()": f"RedisBackend(url={shared_server().url!r})"},
    )
    # The document leaves out the function that its example returns from.
    run(
        """
        def once():
            with limiter.acquire(raise_on_failure=False) as acquired:
                if not acquired:
                    print("Mutex not acquired.")
                    return

                print("Mutex acquired.")
        """,
        names,
    )
    names["once"]()
    with names["limiter"].acquire():
        names["once"]()
    (tenth,) = run('>>> BucketRateLimiter(backend, "some-key", limit=10, bucket=1_000)', names)
    (one,) = run('>>> BucketRateLimiter(backend, "some-key", limit=1, bucket=60_000)', names)

    assert capsys.readouterr().out.splitlines() == ["Mutex acquired.", "Mutex not acquired."]
    assert (tenth.limit, tenth.bucket, one.limit, one.bucket) == (10, 1000, 1, 60_000)
    with tenth.acquire() as acquired:
        assert acquired


def test_the_example_of_a_barrier_runs_on_redis(names):
    shared_server().client().flushall()
    answers = run(
        """
        >>> from dramatiq.rate_limits import Barrier
        >>> from dramatiq.rate_limits.backends import RedisBackend

        >>> backend = RedisBackend()
        >>> barrier = Barrier(backend, "some-barrier", ttl=30_000)

        >>> created = barrier.create(parties=3)
        >>> barrier.wait(block=False)
        False
        >>> barrier.wait(block=False)
        False
        >>> barrier.wait(block=False)
        True
        """,
        names,
        **{"RedisBackend()": f"RedisBackend(url={shared_server().url!r})"},
    )

    assert names["created"] is True
    assert answers == [False, False, True]


# -- the page on brokers


@pytest.fixture
def to_redis():
    """Addresses of its examples that lead to the server of the tests instead, a password included."""
    with redis_server() as server:
        server.client().config_set("requirepass", "secret")
        yield {
            'host="redis.example.com"': 'host="127.0.0.1"',
            "port=6379": f"port={server.port}",
            "redis://localhost:6379/0": f"redis://:secret@127.0.0.1:{server.port}/0",
        }


def connects_and_closes(broker):
    broker.connect()
    broker.close()
    if hasattr(broker, "client"):
        broker.client.close()


def test_the_page_makes_redis_brokers_that_connect(names, to_redis):
    # The password, which the page has in one of them, is what the server of the tests asks of all.
    basic = 'redis_broker = RedisBroker(host="localhost", port=6379, db=0, password="secret")'
    with_url = 'redis_broker = RedisBroker(url="redis://localhost:6379/0")'
    custom = """
    redis_broker = RedisBroker(
        host="redis.example.com",
        port=6379,
        password="secret",
        namespace="myapp",
        heartbeat_timeout=120000,  # 2 minutes
        dead_message_ttl=86400000  # 1 day
    )
    """
    # The page gives it a client with decode_responses=True, with which messages cannot be read.
    with_client = """
    import redis
    redis_client = redis.Redis(host="localhost", port=6379, password="secret")
    redis_broker = RedisBroker(client=redis_client)

    dramatiq.set_broker(redis_broker)
    """
    pooled = """
    import redis
    pool = redis.ConnectionPool(
        host="redis.example.com",
        port=6379,
        max_connections=20,
        password="secret",
        retry_on_timeout=True
    )
    redis_client = redis.Redis(connection_pool=pool)
    redis_broker = RedisBroker(client=redis_client)
    """

    for example in (basic, with_url, custom, with_client, pooled):
        run(example, names, **to_redis)
        connects_and_closes(names["redis_broker"])

    run(custom, names, **to_redis)
    assert names["redis_broker"].namespace == "myapp"
    assert names["redis_broker"].heartbeat_timeout == 120_000
    assert names["redis_broker"].dead_message_ttl == 86_400_000


def test_a_redis_client_that_decodes_is_refused_as_the_page_should_say():
    with pytest.raises(ValueError, match="decode_responses"):
        RedisBroker(client=redis.Redis(host="localhost", port=6379, decode_responses=True))


def test_the_page_makes_rabbitmq_brokers_that_connect(names):
    server = rabbitmq_server.shared_server()
    to_server = {
        "port=5672": f"port={server.port}",
        "rabbitmq.example.com": "127.0.0.1",
        '"user", "password"': '"guest", "guest"',
    }
    with server.vhost() as vhost:
        to_server["amqp://user:password@rabbitmq.example.com:5672/myapp"] = vhost.url
        to_server["amqp://user:pass@rabbitmq-cluster.example.com:5672/prod"] = vhost.url
        for example in (
            'rabbitmq_broker = RabbitmqBroker(host="localhost", port=5672)',
            """
            rabbitmq_broker = RabbitmqBroker(
                url="amqp://user:password@rabbitmq.example.com:5672/myapp"
            )
            """,
            """
            rabbitmq_broker = RabbitmqBroker(
                host="localhost",
                port=5672,
                confirm_delivery=True,
                max_priority=255,
                heartbeat=600,
                connection_attempts=3
            )
            """,
            # The reference has a list of dicts here; greenq takes what the page has as well.
            """
            import pika
            params = pika.ConnectionParameters(
                host="rabbitmq.example.com",
                port=5672,
                credentials=pika.PlainCredentials("user", "password"),
                heartbeat=600
            )
            rabbitmq_broker = RabbitmqBroker(parameters=params)

            dramatiq.set_broker(rabbitmq_broker)
            """,
            """
            rabbitmq_broker = RabbitmqBroker(
                url="amqp://user:pass@rabbitmq-cluster.example.com:5672/prod",
                confirm_delivery=True,
                connection_attempts=5,
                retry_delay=2.0
            )
            """,
        ):
            run(example, names, **to_server)
            connects_and_closes(names["rabbitmq_broker"])
        as_the_reference_has_it = RabbitmqBroker(
            parameters=[{"host": "127.0.0.1", "port": 1}, {"host": "127.0.0.1", "port": server.port}]
        )
        connects_and_closes(as_the_reference_has_it)


def test_the_page_tests_with_the_stub_broker(names):
    run(
        """
        # Create stub broker for testing
        stub_broker = StubBroker()
        dramatiq.set_broker(stub_broker)

        # Define and test actors
        @dramatiq.actor
        def test_task(value):
            return value * 2

        # Send message
        test_task.send(21)

        # Process messages synchronously in tests
        import dramatiq
        worker = dramatiq.Worker(stub_broker, worker_timeout=100)
        worker.start()
        worker.join()
        worker.stop()

        # Check results
        assert len(stub_broker.dead_letters) == 0  # No failures
        """,
        names,
    )

    assert names["worker"].jobs_done == 1


def test_the_page_sets_and_gets_the_redis_broker_and_adds_to_it(names, capsys):
    run(
        """
        # Set up broker
        redis_broker = RedisBroker()
        dramatiq.set_broker(redis_broker)

        # Get current broker
        current_broker = dramatiq.get_broker()
        print(f"Using broker: {type(current_broker).__name__}")

        # Add middleware to current broker
        from dramatiq.middleware import Prometheus
        current_broker.add_middleware(Prometheus())
        """,
        names,
    )

    assert capsys.readouterr().out == "Using broker: RedisBroker\n"
    assert type(names["redis_broker"].middleware[-1]).__name__ == "Prometheus"


def test_the_page_chooses_middleware_of_its_own_for_a_redis_broker(names):
    run(
        """
        from dramatiq.middleware import AgeLimit, TimeLimit, Retries, Prometheus

        # Create broker with custom middleware
        custom_middleware = [
            Prometheus(),
            AgeLimit(max_age=3600000),  # 1 hour
            TimeLimit(time_limit=300000),  # 5 minutes
            Retries(max_retries=5)
        ]

        broker = RedisBroker(middleware=custom_middleware)
        dramatiq.set_broker(broker)
        """,
        names,
    )

    assert names["broker"].middleware == names["custom_middleware"]
    assert names["broker"].actor_options >= {"max_age", "time_limit", "max_retries"}


@pytest.mark.parametrize(
    ("environment", "kind"), [("production", "RabbitmqBroker"), ("development", "RedisBroker"), ("", "StubBroker")]
)
def test_the_page_chooses_a_broker_by_the_environment(names, monkeypatch, environment, kind):
    monkeypatch.setenv("ENVIRONMENT", environment)
    monkeypatch.setenv("RABBITMQ_URL", "amqp://127.0.0.1:5672")
    run(
        """
        # Different brokers for different environments
        import os

        if os.getenv("ENVIRONMENT") == "production":
            broker = RabbitmqBroker(
                url=os.getenv("RABBITMQ_URL"),
                confirm_delivery=True
            )
        elif os.getenv("ENVIRONMENT") == "development":
            broker = RedisBroker(
                url=os.getenv("REDIS_URL", "redis://localhost:6379/0")
            )
        else:  # testing
            broker = StubBroker()

        dramatiq.set_broker(broker)
        """,
        names,
    )

    assert type(dramatiq.get_broker()).__name__ == kind


def test_the_page_uses_the_client_of_the_redis_broker(names):
    server = shared_server()
    server.client().flushall()
    run(
        """
        redis_broker = RedisBroker()

        # Access underlying Redis client
        redis_client = redis_broker.client

        # Custom Redis operations
        redis_client.set("custom_key", "value")
        """,
        names,
        **{"RedisBroker()": f"RedisBroker(url={server.url!r})"},
    )
    names["redis_broker"].declare_queue("default")
    names["redis_broker"].enqueue(dramatiq.Message("default", "anything", (), {}, {}))
    # The page has llen() here, but the key is that of a hash.
    run('queue_length = redis_client.hlen(f"{redis_broker.namespace}:default.msgs")', names)

    assert names["queue_length"] == 1
    assert server.client().get("custom_key") == b"value"
    names["redis_client"].close()


def test_the_page_gives_actors_priorities_on_every_broker(names, tmp_path):
    # What it says is RabbitMQ's alone is the option broker_priority there; that of actors counts
    # wherever the broker tells it apart. So here on the embedded one.
    names["broker"] = SqliteBroker(tmp_path / "queue.db")
    dramatiq.set_broker(names["broker"])
    names["ran"] = []
    run(
        """
        @dramatiq.actor(priority=5)
        def high_priority_task():
            ran.append("high priority")

        @dramatiq.actor(priority=1)  # Higher priority (lower number)
        def critical_task():
            ran.append("critical")
        """,
        names,
    )
    names["high_priority_task"].send()
    names["critical_task"].send()
    worker = dramatiq.Worker(names["broker"], worker_threads=1)
    worker.start()
    names["broker"].join("default", timeout=20_000)
    worker.stop(5000)

    assert names["ran"] == ["critical", "high priority"]


def test_the_page_catches_the_errors_of_brokers(names, stub, capsys):
    stub.declare_queue("queue_name")
    stub.enqueue(dramatiq.Message("queue_name", "anything", (), {}, {}))
    names["invalid_message"] = dramatiq.Message("never_declared", "anything", (), {}, {})
    run(
        """
        try:
            broker.get_actor("nonexistent_actor")
        except dramatiq.ActorNotFound:
            print("Actor not found")

        try:
            broker.join("queue_name", timeout=50)
        except dramatiq.QueueJoinTimeout:
            print("Queue join timed out")

        try:
            message = broker.enqueue(invalid_message)
        except dramatiq.BrokerError as e:
            print(f"Broker error: {e}")
        """,
        names,
    )

    first, second, third = capsys.readouterr().out.splitlines()
    assert (first, second) == ("Actor not found", "Queue join timed out")
    assert third.startswith("Broker error: No queue named 'never_declared'")
