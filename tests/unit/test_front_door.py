"""What `import greenq` brings, and what it leaves alone."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import greenq

#: What the API reference has at its top and this version has as well.
NAMES = [
    *("Actor", "Broker", "Consumer", "Encoder", "JSONEncoder", "Message", "MessageProxy", "Middleware"),
    *("PickleEncoder", "Worker", "actor", "group", "pipeline"),
    *("get_broker", "get_encoder", "get_logger", "set_broker", "set_encoder"),
    *("ActorNotFound", "BrokerConnectionError", "BrokerError", "ConnectionClosed", "ConnectionError"),
    *("ConnectionFailed", "DecodeError", "GreenqError", "MiddlewareError", "QueueJoinTimeout", "QueueNotFound"),
    *("RateLimitExceeded", "ResultError", "ResultFailure", "ResultMissing", "ResultTimeout", "Retry"),
]

CLIENTS = ("gevent", "greenlet", "sqlite3", "redis", "pika", "ssl", "psutil", "asyncio", "multiprocessing")


def run(program):
    """What a program prints, as JSON, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def loaded_by(statements):
    return run(f"{statements}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_the_reference_is_exported(name):
    assert getattr(greenq, name) is not None
    assert name in greenq.__all__


def test_every_exported_name_is_there():
    assert [name for name in greenq.__all__ if getattr(greenq, name, None) is None] == []


def test_importing_greenq_imports_neither_gevent_nor_a_brokers_client():
    modules = loaded_by("import greenq")

    assert [name for name in CLIENTS if name in modules] == []


def test_the_redis_broker_without_redis_py_tells_what_to_install():
    told = run(
        "import sys, json\n"
        "sys.modules['redis'] = None\n"
        "try:\n"
        "    import greenq.brokers.redis\n"
        "except ModuleNotFoundError as error:\n"
        "    print(json.dumps([error.name, str(error)]))\n"
    )

    assert told[0] == "redis"
    assert "pip install" in told[1]


def test_declaring_and_sending_imports_no_gevent():
    modules = loaded_by(
        "import greenq\n"
        "from greenq.brokers.stub import StubBroker\n"
        "greenq.set_broker(StubBroker())\n"
        "greenq.actor(queue_name='q')(len).send([1])\n"
    )

    assert "gevent" not in modules
    assert "sqlite3" not in modules


def test_results_and_rate_limits_load_a_client_only_with_its_backend():
    modules = loaded_by(
        "import greenq.results, greenq.rate_limits\n"
        "from greenq.results.backends import StubBackend\n"
        "from greenq.rate_limits.backends import StubBackend as Limits\n"
        "StubBackend(), Limits()\n"
    )

    assert [name for name in (*CLIENTS, "pymemcache") if name in modules] == []


@pytest.mark.parametrize("kind", ["results", "rate_limits"])
@pytest.mark.parametrize(("backend", "client"), [("RedisBackend", "redis"), ("MemcachedBackend", "pymemcache")])
def test_a_backend_without_its_client_tells_what_to_install(kind, backend, client):
    told = run(
        "import sys, json\n"
        f"sys.modules[{client!r}] = None\n"
        "try:\n"
        f"    from greenq.{kind}.backends import {backend}\n"
        "except ModuleNotFoundError as error:\n"
        "    print(json.dumps([error.name, str(error)]))\n"
    )

    assert told[0] == client
    assert backend in told[1]
    assert "pip install" in told[1]


def test_results_and_rate_limits_are_there_without_an_import_of_their_own():
    assert run(
        "import greenq as dramatiq, json\n"
        "names = [dramatiq.results.Results, dramatiq.rate_limits.Barrier, dramatiq.rate_limits.backends.StubBackend]\n"
        "print(json.dumps([each.__name__ for each in names]))"
    ) == ["Results", "Barrier", "StubBackend"]


def test_importing_greenq_patches_nothing():
    assert run(
        "import json, socket, threading, time\n"
        "before = [socket.socket, threading.Thread, threading.Lock, time.sleep]\n"
        "import greenq, greenq.worker\n"
        "print(json.dumps(before == [socket.socket, threading.Thread, threading.Lock, time.sleep]))"
    )


@pytest.mark.parametrize(
    "imports",
    [
        "import greenq.actor",
        "import greenq, greenq.actor",
        "from greenq.actor import Actor; import greenq",
        "import greenq.brokers.stub, greenq.actor, greenq.worker",
        "from greenq import Worker; import greenq",
        "import importlib, greenq; importlib.import_module('greenq.actor')",
    ],
)
def test_actor_is_the_decorator_whatever_is_imported_first(imports):
    assert run(f"{imports}\nimport json\nprint(json.dumps(greenq.actor.__class__.__name__))") == "function"


def test_errors_can_be_imported_from_their_own_module():
    from greenq import errors

    for name in errors.__all__:
        assert getattr(greenq, name) is getattr(errors, name)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        greenq.nonsense  # noqa: B018


def test_errors_keep_their_message_and_read_as_it():
    assert greenq.QueueNotFound("what happened").message == "what happened"
    assert str(greenq.QueueNotFound("what happened")) == "what happened"
    assert str(greenq.Retry()) == "''"


def test_errors_are_related_as_the_reference_has_it():
    assert issubclass(greenq.ActorNotFound, greenq.BrokerError)
    assert issubclass(greenq.ConnectionClosed, greenq.ConnectionError)
    assert greenq.BrokerConnectionError is greenq.ConnectionError
    assert not issubclass(greenq.QueueJoinTimeout, greenq.BrokerError)
    assert not issubclass(greenq.Interrupt, Exception)
    assert issubclass(greenq.SkipMessage, greenq.MiddlewareError)
