"""Every name of the API's documents is there, with the parameters and defaults that they give it.

The names are in reference_names.txt, as the documents write them. An application's modules need
nothing but `import greenq as dramatiq`.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import greenq as dramatiq
from greenq.brokers.redis import RedisBroker
from greenq.brokers.stub import StubBroker
from greenq.settings import SETTINGS


class Name(NamedTuple):
    """A line of reference_names.txt.

    Attributes:
      parameters(str | None): None if the documents give none.
    """

    kind: str
    path: str
    parameters: str | None
    base: str | None

    def __str__(self) -> str:
        return self.path + (f"({self.parameters})" if self.parameters is not None else "")


def _names() -> list[Name]:
    lines = (Path(__file__).parent / "reference_names.txt").read_text().splitlines()
    found = [
        re.fullmatch(r"(?P<kind>\w+) (?P<path>[\w.]+)(\((?P<parameters>.*)\))?( of (?P<base>[\w.]+))?", line)
        for line in lines
        if line and not line.startswith("#")
    ]
    assert all(found), "a line of reference_names.txt cannot be read"
    return [Name(**each.groupdict()) for each in found if each is not None]


NAMES = _names()


class Different(NamedTuple):
    """A parameter that greenq has in another way, on purpose.

    Attributes:
      ours(str | None): It as greenq has it; None: it has none of that name.
    """

    ours: str | None
    why: str


_OF_RABBITMQ = "one of greenq's own, which the documents do not have"
_CLIENT_OF_MEMCACHED = "pymemcache is the client, and this is how it is told where the servers are"
_LEASES = "the lease is kept by a thread of its own, which a busy job does not stop, so a shorter one is safe"
_DEATHS = "a message that kills its workers is given up, and this says after how many of them"
_LANES = "jobs that block run in threads or processes beside the greenlets"
_ENVIRONMENT = "None stands for the environment variable, and without one for the number in the document"
_NAMESPACE = "as of the broker"
_INTERVAL = "one name for it on every broker"

#: What is different, and why. Each is told in docs/coming-from-dramatiq.md.
DIFFERENCES = {
    "dramatiq.brokers.rabbitmq.RabbitmqBroker(confirm_delivery)": Different(
        "confirm_delivery=True", "without it a message is lost with the connection, and nobody is told"
    ),
    "dramatiq.brokers.rabbitmq.RabbitmqBroker(queue_type)": Different("queue_type='classic'", _OF_RABBITMQ),
    "dramatiq.brokers.rabbitmq.RabbitmqBroker(queue_arguments)": Different("queue_arguments=None", _OF_RABBITMQ),
    "dramatiq.brokers.rabbitmq.RabbitmqBroker(send_timeout)": Different("send_timeout=30000", _OF_RABBITMQ),
    "dramatiq.brokers.rabbitmq.RabbitmqBroker(dead_message_ttl)": Different("dead_message_ttl=None", _OF_RABBITMQ),
    "dramatiq.brokers.rabbitmq.RabbitmqBroker(max_deliveries)": Different("max_deliveries=3", _DEATHS),
    "dramatiq.brokers.redis.RedisBroker(max_deliveries)": Different("max_deliveries=3", _DEATHS),
    "dramatiq.brokers.stub.StubBroker(max_deliveries)": Different("max_deliveries=3", _DEATHS),
    "dramatiq.brokers.redis.RedisBroker(namespace)": Different(
        "namespace='greenq'", "what is stored is laid out in another way, so the two must not meet under one name"
    ),
    "dramatiq.brokers.redis.RedisBroker(heartbeat_timeout)": Different("heartbeat_timeout=15000", _LEASES),
    "dramatiq.brokers.redis.RedisBroker(dead_message_ttl)": Different("dead_message_ttl=None", _ENVIRONMENT),
    "dramatiq.brokers.redis.RedisBroker(requeue_deadline)": Different(
        "requeue_deadline=None", "only the page on brokers names it; it is accepted and does nothing there either"
    ),
    "dramatiq.brokers.redis.RedisBroker(requeue_interval)": Different(
        "requeue_interval=None", "only the page on brokers names it; it is accepted and does nothing there either"
    ),
    "dramatiq.actor(lane)": Different("lane='greenlet'", _LANES),
    "dramatiq.Broker.join(interval)": Different("interval=100", _INTERVAL),
    "dramatiq.brokers.rabbitmq.RabbitmqBroker.join(interval)": Different("interval=None", _INTERVAL),
    "dramatiq.brokers.stub.StubBroker.join(interval)": Different("interval=100", _INTERVAL),
    "dramatiq.MessageProxy(broker)": Different(None, "the page on brokers is wrong: a proxy is made of a message"),
    "dramatiq.MessageProxy.fail(reason)": Different("reason=None", "dead letters are kept with the reason"),
    "dramatiq.GenericActor.perform(*)": Different("*args", "each class gives it parameters of its own"),
    "dramatiq.GenericActor.perform(**)": Different("**kwargs", "each class gives it parameters of its own"),
    "dramatiq.group.add_completion_callback(on)": Different("on='success'", "callbacks also for groups that failed"),
    "dramatiq.middleware.Retries(retry_shutdown)": Different(
        "retry_shutdown=False", "what a stop interrupts spends no retry, and this keeps the way of the documents"
    ),
    "dramatiq.middleware.TimeLimit(soft_time_limit)": Different(
        "soft_time_limit=None", "a warning that tells where a job is before its limit interrupts it"
    ),
    "dramatiq.middleware.GroupCallbacks(barrier_ttl)": Different("barrier_ttl=None", _ENVIRONMENT),
    "dramatiq.results.Results(store_timeout)": Different("store_timeout=30000", "results outlast an outage"),
    "dramatiq.results.ResultBackend(namespace)": Different("namespace='greenq-results'", _NAMESPACE),
    "dramatiq.results.ResultBackend(values)": Different("values=None", "what a backend stores in, for those derived"),
    "dramatiq.results.backends.MemcachedBackend(namespace)": Different("namespace='greenq-results'", _NAMESPACE),
    "dramatiq.results.backends.MemcachedBackend(servers)": Different("servers=None", _CLIENT_OF_MEMCACHED),
    "dramatiq.results.backends.RedisBackend(namespace)": Different("namespace='greenq-results'", _NAMESPACE),
    "dramatiq.results.backends.StubBackend(namespace)": Different("namespace='greenq-results'", _NAMESPACE),
    "dramatiq.results.ResultFailure(message_id)": Different("message_id=None", "says which of several has failed"),
    "dramatiq.rate_limits.backends.MemcachedBackend(servers)": Different("servers=None", _CLIENT_OF_MEMCACHED),
    "dramatiq.rate_limits.RateLimiter.acquire(wait)": Different("wait=None", "to wait costs no retry"),
    "dramatiq.Worker(concurrency)": Different("concurrency=None", "jobs run in greenlets, not in threads"),
    "dramatiq.Worker(lane_processes)": Different("lane_processes=None", _LANES),
    "dramatiq.Worker(lane_threads)": Different("lane_threads=None", _LANES),
    "dramatiq.Worker(worker_timeout)": Different("worker_timeout=None", _ENVIRONMENT),
}

#: Attributes are those of an object; none of these connects to anything.
OBJECTS = {
    "dramatiq.Actor": lambda: dramatiq.actor(broker=StubBroker())(len),
    "dramatiq.GenericActor": lambda: _class_based_actor(),
    "dramatiq.Broker": dramatiq.Broker,
    "dramatiq.brokers.redis.RedisBroker": RedisBroker,
    "dramatiq.brokers.stub.StubBroker": StubBroker,
}


def _class_based_actor():
    class Anything(dramatiq.GenericActor):
        class Meta:
            broker = StubBroker()

        def perform(self):
            """Nothing."""

    return Anything


def resolve(path):
    """What a path of the documents names; its modules are imported on the way."""
    parts = path.split(".")
    found: Any = dramatiq
    for count, part in enumerate(parts[1:], 2):
        if inspect.ismodule(found) and not hasattr(found, part):
            importlib.import_module(".".join(["greenq", *parts[1:count]]))
        found = getattr(found, part)
    return found


def of_kind(*kinds):
    chosen = [name for name in NAMES if name.kind in kinds]
    return pytest.mark.parametrize("name", chosen, ids=str)


@of_kind("function", "class", "exception", "method", "abstract", "classmethod")
def test_a_name_of_the_documents_is_there(name):
    assert callable(resolve(name.path))


@of_kind("function", "class", "exception", "method", "abstract", "classmethod")
def test_what_can_be_called_has_the_parameters_of_the_documents_and_their_defaults(name):
    if name.parameters is None:
        return
    theirs, ours = _parameters(name.parameters), _parameters_of(resolve(name.path), name.kind)

    for parameter in dict.fromkeys([*theirs, *ours]):
        known = DIFFERENCES.get(f"{name.path}({parameter})")
        if known is not None:
            assert (str(ours[parameter]) if parameter in ours else None) == known.ours, known.why
        else:
            assert parameter in ours, f"{name.path} lacks the parameter {parameter}"
            assert parameter in theirs, f"{name.path} has a parameter {parameter} of which the documents say nothing"
            assert _is_same(theirs[parameter], ours[parameter]), f"{ours[parameter]} instead of {theirs[parameter]}"
    expected = [each for each in _positional(theirs) if each in ours]
    assert _positional(ours)[: len(expected)] == expected


def _parameters(text):
    """Those of a line of the documents, by their names."""
    return _by_name(inspect.signature(eval(f"lambda {text}: None", {"Actor": dramatiq.Actor})))


def _parameters_of(found, kind):
    # What is not bound to an object has self for its first parameter.
    signature = inspect.signature(functools.partial(found, None) if kind in ("method", "abstract") else found)
    return _by_name(signature)


def _by_name(signature):
    # The names of *args and **kwargs are nobody's business.
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    without_types = [each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()]
    return {stars.get(each.kind, each.name): each for each in without_types}


def _is_same(theirs, ours):
    if theirs.default is ...:
        return theirs.kind is ours.kind and ours.default is not ours.empty
    return theirs.kind is ours.kind and theirs.default == ours.default and type(theirs.default) is type(ours.default)


def _positional(parameters):
    return [name for name, each in parameters.items() if each.kind is each.POSITIONAL_OR_KEYWORD]


@of_kind("class", "exception")
def test_a_class_is_derived_from_the_one_that_the_documents_say(name):
    if name.base is None:
        return
    bases = [f"{each.__module__}.{each.__qualname__}" for each in resolve(name.path).__mro__[1:]]
    named = name.base.replace("Dramatiq", "Greenq")

    assert any(base.endswith(f".{named}") for base in bases), bases


@of_kind("abstract")
def test_an_abstract_method_has_to_be_written(name):
    assert resolve(name.path).__isabstractmethod__


@of_kind("property")
def test_a_property_of_the_documents_is_one(name):
    owner, _, attribute = name.path.rpartition(".")

    assert isinstance(inspect.getattr_static(resolve(owner), attribute), property)


@of_kind("attribute")
def test_an_attribute_of_the_documents_is_there(name):
    owner, _, attribute = name.path.rpartition(".")

    assert hasattr(OBJECTS[owner](), attribute)


@of_kind("option")
def test_an_option_of_the_documents_is_known_to_its_middleware(name):
    owner = resolve(name.base)
    known = owner(backend=None) if name.base == "dramatiq.results.Results" else owner()

    assert name.path in {*known.actor_options, *known.message_option_types}


@of_kind("variable")
def test_an_environment_variable_of_the_documents_is_one_of_greenqs(name):
    assert name.path.upper().replace("DRAMATIQ", "GREENQ") in {each.name for each in SETTINGS}


def test_every_difference_in_the_table_is_one():
    there = {
        f"{name.path}({parameter})"
        for name in NAMES
        if name.parameters is not None
        for parameter in {
            *_parameters(name.parameters),
            *_parameters_of(resolve(name.path), name.kind),
        }
    }
    same = {
        f"{name.path}({parameter})"
        for name in NAMES
        if name.parameters is not None
        for parameter, theirs in _parameters(name.parameters).items()
        if (ours := _parameters_of(resolve(name.path), name.kind).get(parameter)) and _is_same(theirs, ours)
    }

    assert DIFFERENCES.keys() <= there
    # Two documents may say different things of one parameter.
    only_second = {each for each in DIFFERENCES if "requeue_" in each}
    assert DIFFERENCES.keys() & same == only_second


def test_a_parameter_that_is_missing_or_different_is_found():
    theirs = _parameters("self_made, limit=1, *, ttl=900000, **parameters")
    ours = _by_name(inspect.signature(lambda self_made, limit=True, ttl=900_000, **rest: None))

    assert not _is_same(theirs["limit"], ours["limit"])  # True is not 1
    assert not _is_same(theirs["ttl"], ours["ttl"])  # no keyword-only one
    assert _is_same(theirs["**"], ours["**"])
    assert "limit" not in _parameters_of(lambda self, size: None, "method")


#: What modules of applications import, beside the paths of the documents' names.
IMPORTS = [
    "import dramatiq.brokers.redis, dramatiq.brokers.rabbitmq, dramatiq.brokers.stub, dramatiq.middleware.prometheus",
    "from dramatiq import Worker, actor, get_logger, group, pipeline",
    "from dramatiq import Actor, GenericActor, Broker, Consumer, MessageProxy, get_broker, set_broker",
    "from dramatiq import Encoder, JSONEncoder, PickleEncoder, Message, get_encoder, set_encoder, Middleware",
    "from dramatiq import DramatiqError, BrokerError, RateLimitExceeded, Retry, QueueJoinTimeout",
    "from dramatiq import ConnectionError, BrokerConnectionError, ResultError, ResultMissing",
    "from dramatiq.actor import Actor, actor",
    "from dramatiq.broker import Broker, Consumer, MessageProxy, get_broker, set_broker",
    "from dramatiq.brokers.redis import RedisBroker",
    "from dramatiq.brokers.rabbitmq import RabbitmqBroker",
    "from dramatiq.brokers.stub import StubBroker",
    "from dramatiq.composition import group, pipeline",
    "from dramatiq.encoder import Encoder, JSONEncoder, PickleEncoder",
    "from dramatiq.errors import ActorNotFound, DecodeError, DramatiqError, Retry",
    "from dramatiq.generic import GenericActor",
    "from dramatiq.logging import get_logger",
    "from dramatiq.message import Message, get_encoder, set_encoder",
    "from dramatiq.middleware import AgeLimit, Callbacks, Interrupt, Middleware, MiddlewareError, Prometheus, Retries",
    "from dramatiq.middleware import Shutdown, SkipMessage, TimeLimit, TimeLimitExceeded, default_middleware",
    "from dramatiq.middleware.prometheus import Prometheus",
    "from dramatiq.rate_limits import Barrier, BucketRateLimiter, ConcurrentRateLimiter, WindowRateLimiter",
    "from dramatiq.rate_limits.backends import MemcachedBackend, RedisBackend, StubBackend",
    "from dramatiq.rate_limits.backends.redis import RedisBackend",
    "from dramatiq.rate_limits.backends.memcached import MemcachedBackend",
    "from dramatiq.rate_limits.backends.stub import StubBackend",
    "from dramatiq.results import ResultBackend, ResultFailure, ResultMissing, Results, ResultTimeout",
    "from dramatiq.results.backends import MemcachedBackend, RedisBackend, StubBackend",
    "from dramatiq.results.backends.redis import RedisBackend",
    "from dramatiq.results.backends.memcached import MemcachedBackend",
    "from dramatiq.results.backends.stub import StubBackend",
    "from dramatiq.results.errors import ResultFailure, ResultMissing, ResultTimeout",
    "from dramatiq.worker import ConsumerThread, Worker, WorkerThread",
]


@pytest.mark.parametrize("imports", IMPORTS)
def test_an_import_of_an_application_works_with_the_name_changed(imports):
    exec(imports.replace("dramatiq", "greenq"), {})


def test_one_import_as_dramatiq_is_enough_for_what_needs_no_client():
    program = """
import greenq as dramatiq
from greenq.brokers.stub import StubBroker

class Mine(dramatiq.Middleware):
    pass

dramatiq.set_broker(StubBroker(middleware=[Mine(), dramatiq.middleware.Retries()]))
dramatiq.get_broker().add_middleware(dramatiq.results.Results(backend=dramatiq.results.backends.StubBackend()))

@dramatiq.actor(store_results=True, max_retries=0)
def add(x, y):
    return x + y

worker = dramatiq.Worker(dramatiq.get_broker())
worker.start()
message = add.send(1, 2)
assert message.get_result(block=True) == 3
worker.stop()
try:
    raise dramatiq.RateLimitExceeded("too often")
except dramatiq.DramatiqError as error:
    assert isinstance(error, dramatiq.errors.GreenqError)
assert dramatiq.errors.DramatiqError is dramatiq.GreenqError
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 0, done.stderr
