"""Which broker is used when none was set."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys

import pytest

import greenq
from greenq import default_broker, extras
from greenq.brokers.rabbitmq import RabbitmqBroker
from greenq.brokers.redis import RedisBroker
from greenq.brokers.sqlite import SqliteBroker
from greenq.brokers.stub import StubBroker


@pytest.fixture(autouse=True)
def no_url(monkeypatch, tmp_path):
    monkeypatch.delenv("GREENQ_BROKER_URL", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def nothing_installed(monkeypatch):
    monkeypatch.setattr(default_broker, "_exists", lambda module: False)


def test_the_broker_that_was_set_is_the_broker():
    broker = StubBroker()

    greenq.set_broker(broker)

    assert greenq.get_broker() is broker


def test_the_default_is_the_embedded_broker_where_no_client_is_installed(nothing_installed, tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="greenq"):
        broker = greenq.get_broker()

    assert isinstance(broker, SqliteBroker)
    assert broker.path == str(tmp_path / "greenq.db")
    assert len([record for record in caplog.records if "greenq.db" in record.message]) == 1
    broker.close()


def test_the_default_creates_no_file_until_it_is_used(nothing_installed, tmp_path):
    greenq.get_broker().close()

    assert list(tmp_path.iterdir()) == []


def test_the_default_is_made_once(nothing_installed):
    assert greenq.get_broker() is greenq.get_broker()


def test_the_url_of_the_environment_names_the_default(monkeypatch):
    monkeypatch.setenv("GREENQ_BROKER_URL", "memory://")

    assert isinstance(greenq.get_broker(), StubBroker)


def test_an_empty_url_is_no_url(nothing_installed, monkeypatch):
    monkeypatch.setenv("GREENQ_BROKER_URL", "")

    assert isinstance(greenq.get_broker(), SqliteBroker)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///queue.db", "{cwd}/queue.db"),
        ("sqlite:///data/queue.db", "{cwd}/data/queue.db"),
        ("sqlite:////var/lib/queue.db", "/var/lib/queue.db"),
        ("sqlite:///with%20space.db", "{cwd}/with space.db"),
    ],
)
def test_a_sqlite_url_names_a_file(monkeypatch, tmp_path, url, path):
    monkeypatch.setenv("GREENQ_BROKER_URL", url)

    broker = greenq.get_broker()

    assert broker.path == path.format(cwd=tmp_path)
    broker.close()


@pytest.mark.parametrize("url", ["sqlite://queue.db", "sqlite:", "sqlite:///"])
def test_a_sqlite_url_without_a_file_is_an_error_that_shows_how(monkeypatch, url):
    monkeypatch.setenv("GREENQ_BROKER_URL", url)

    with pytest.raises(ValueError, match=r"sqlite:///queue\.db"):
        greenq.get_broker()


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_a_redis_url_names_a_server_and_tells_no_password(monkeypatch, scheme):
    monkeypatch.setenv("GREENQ_BROKER_URL", f"{scheme}://:secret@localhost:1234/5")

    broker = greenq.get_broker()

    assert isinstance(broker, RedisBroker)
    assert "localhost:1234" in repr(broker)
    assert "secret" not in repr(broker)


def test_a_socket_of_a_redis_server_is_a_url(monkeypatch):
    monkeypatch.setenv("GREENQ_BROKER_URL", "unix:///run/redis/redis.sock?db=2")

    broker = greenq.get_broker()

    assert isinstance(broker, RedisBroker)
    assert "/run/redis/redis.sock" in repr(broker)


@pytest.mark.parametrize("scheme", ["amqp", "amqps"])
def test_an_amqp_url_names_a_server_and_tells_no_password(monkeypatch, scheme):
    monkeypatch.setenv("GREENQ_BROKER_URL", f"{scheme}://me:secret@localhost:1234/jobs")

    broker = greenq.get_broker()

    assert isinstance(broker, RabbitmqBroker)
    assert "localhost:1234/jobs" in repr(broker)
    assert "secret" not in repr(broker)


def has_versions(monkeypatch, **versions):
    monkeypatch.setattr("importlib.metadata.version", lambda module: versions.get(module, "0"))


def test_rabbitmq_is_the_default_where_its_client_is_installed(monkeypatch):
    has_versions(monkeypatch, pika="1.3.2", redis="5.0.1")

    assert isinstance(greenq.get_broker(), RabbitmqBroker)


def test_redis_is_the_default_where_only_its_client_is_new_enough(monkeypatch):
    has_versions(monkeypatch, redis="5.0.1")

    assert isinstance(greenq.get_broker(), RedisBroker)


def test_an_old_client_of_redis_counts_as_none(monkeypatch):
    has_versions(monkeypatch, redis="4.6.0")

    broker = greenq.get_broker()

    assert isinstance(broker, SqliteBroker)
    broker.close()


@pytest.mark.parametrize(
    ("url", "client", "advice"),
    [
        ("redis://:secret@host", "redis", ["pip install 'redis[hiredis]>=5'", "greenq[redis]"]),
        ("amqp://me:secret@host", "pika", ["pip install 'pika>=1.3.2'", "greenq[rabbitmq]"]),
    ],
)
def test_a_url_whose_client_is_old_or_missing_says_what_to_install(monkeypatch, url, client, advice):
    monkeypatch.setenv("GREENQ_BROKER_URL", url)
    has_versions(monkeypatch)
    with pytest.raises(ValueError, match="is too old here") as old:
        greenq.get_broker()
    lacks(monkeypatch, client)
    with pytest.raises(ValueError, match="is not installed") as missing:
        greenq.get_broker()

    for text in (str(old.value), str(missing.value)):
        assert [each for each in advice if each not in text] == []
        assert "secret" not in text


@pytest.mark.parametrize(("module", "client"), [("rabbitmq", "pika"), ("redis", "redis")])
def test_a_broker_whose_client_is_missing_says_what_to_install(monkeypatch, module, client):
    for name in [name for name in sys.modules if name.startswith(f"greenq.brokers.{module}")]:
        monkeypatch.delitem(sys.modules, name)
    lacks(monkeypatch, client)

    with pytest.raises(ModuleNotFoundError, match=rf"Broker needs .* pip install '.*greenq\[{module}\]'"):
        importlib.import_module(f"greenq.brokers.{module}")


def lacks(monkeypatch, client):
    found = importlib.util.find_spec
    for user in (importlib.util, extras):
        monkeypatch.setattr(user, "find_spec", lambda name, *more: None if name == client else found(name, *more))


@pytest.mark.parametrize("url", ["http://:secret@host", "secret", "kafka://:secret@host/x"])
def test_another_url_is_an_error_that_lists_the_schemes_and_tells_no_password(monkeypatch, url):
    monkeypatch.setenv("GREENQ_BROKER_URL", url)

    with pytest.raises(ValueError, match="sqlite:///path") as raised:
        greenq.get_broker()
    assert "secret" not in str(raised.value)


def test_an_error_is_raised_again_at_the_next_use(monkeypatch):
    monkeypatch.setenv("GREENQ_BROKER_URL", "kafka://host")

    for _ in range(2):
        with pytest.raises(ValueError, match="kafka"):
            greenq.get_broker()
