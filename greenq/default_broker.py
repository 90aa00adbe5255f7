"""Which broker is meant when none was set.

Concrete brokers are imported inside the functions: nobody else in the domain knows
them, and a producer pays for one of them at most.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from .extras import what_to_install
from .logging import get_logger
from .settings import BROKER_URL

if TYPE_CHECKING:
    from .broker import Broker

#: The embedded broker's file, in the current directory.
DEFAULT_FILE = "greenq.db"

#: Major versions of clients below which a broker would not work.
_OLDEST_CLIENTS = {"pika": 1, "redis": 5}

_SCHEMES = "amqp://, amqps://, redis://, rediss://, unix:///path of a Redis socket, sqlite:///path and memory://"


def make_default_broker() -> Broker:
    """The broker that GREENQ_BROKER_URL names, or else the best one that is installed.

    Logs its choice once, at INFO.

    Raises:
      ValueError: The URL names no broker.
    """
    url = BROKER_URL.get()
    broker = broker_from_url(url) if url else _best_installed()
    because = "as GREENQ_BROKER_URL says" if url else "because GREENQ_BROKER_URL is not set"
    get_logger(__name__).info("The broker is %s, %s.", broker, because)
    return broker


def broker_from_url(url: str) -> Broker:
    """The broker that a URL names.

    Parameters:
      url(str): ``redis://``, ``rediss://``, ``unix:///path`` (a Redis server's socket),
        ``sqlite:///path`` (four slashes for an absolute path) or ``memory://``.

    Raises:
      ValueError: It names none, or one whose client is missing; says what to install.
    """
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        from .brokers.sqlite import SqliteBroker

        path = unquote(parts.path[1:])
        if parts.netloc or not path:
            raise ValueError(
                f"{url!r} does not name a file: write sqlite:///queue.db for a file in the current "
                "directory, sqlite:////var/lib/app/queue.db for an absolute path."
            )
        return SqliteBroker(path)
    if parts.scheme == "memory":
        from .brokers.stub import StubBroker

        return StubBroker()
    if parts.scheme in ("redis", "rediss", "unix"):
        _require("redis", parts.scheme)
        from .brokers.redis import RedisBroker

        return RedisBroker(url=url)
    if parts.scheme in ("amqp", "amqps"):
        _require("pika", parts.scheme)
        from .brokers.rabbitmq import RabbitmqBroker

        return RabbitmqBroker(url=url)
    # The URL may carry a password, so only its scheme is told.
    raise ValueError(
        f"The broker URL begins with {parts.scheme + '://' if parts.scheme else 'no scheme'}, for which "
        f"this version has no broker. It has one for {_SCHEMES}."
    )


def _require(client: str, scheme: str) -> None:
    user = f"The URL {scheme}://... of the broker"
    if importlib.util.find_spec(client) is None:
        raise ValueError(what_to_install(client, user))
    if not _is_new_enough(client):
        version = importlib.metadata.version(client)
        raise ValueError(what_to_install(client, user, problem=f"is too old here ({version})"))


def _best_installed() -> Broker:
    # In this order, where they exist: RabbitMQ if pika is installed, Redis if redis is.
    for module, client, name in (("rabbitmq", "pika", "RabbitmqBroker"), ("redis", "redis", "RedisBroker")):
        if _exists(f"greenq.brokers.{module}") and _exists(client):
            broker: Broker = getattr(importlib.import_module(f"greenq.brokers.{module}"), name)()
            return broker
    from .brokers.sqlite import SqliteBroker

    return SqliteBroker(DEFAULT_FILE)


def _exists(module: str) -> bool:
    return importlib.util.find_spec(module) is not None and _is_new_enough(module)


def _is_new_enough(module: str) -> bool:
    oldest = _OLDEST_CLIENTS.get(module)
    return oldest is None or int(importlib.metadata.version(module).partition(".")[0]) >= oldest
