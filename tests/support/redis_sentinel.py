"""A Redis master with a replica, and three sentinels that watch over them."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import Any

import redis
import redis.sentinel

from .redis_server import RedisServer
from .waiting import PATIENCE_S

MASTER = "jobs"
#: Milliseconds of silence after which a sentinel takes a master for dead.
_DOWN_AFTER_MS = 500


class SentinelProcess(RedisServer):
    """A sentinel.

    Parameters:
      master(RedisServer): Whom it watches.
    """

    def __init__(self, master: RedisServer) -> None:
        self._master = master
        super().__init__()

    def _arguments(self) -> list[str]:
        file = self.folder / "sentinel.conf"
        if not file.exists():  # it writes to it itself
            file.write_text(
                f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
                f"sentinel monitor {MASTER} 127.0.0.1 {self._master.port} 2\n"
                f"sentinel down-after-milliseconds {MASTER} {_DOWN_AFTER_MS}\n"
                f"sentinel failover-timeout {MASTER} 2000\n"
            )
        return [str(file), "--sentinel"]


class SentinelSetup:
    """Master, replica and sentinels that know each other.

    Parameters:
      settings: Of master and replica.

    Attributes:
      first(RedisServer): The master at the start.
      second(RedisServer): Its replica.
      sentinels(list): The sentinels.
    """

    def __init__(self, **settings: str) -> None:
        self.sentinels: list[SentinelProcess] = []
        settings = {
            "repl_diskless_sync_delay": "0",
            "repl_ping_replica_period": "1",
            "appendonly": "yes",
            **settings,
        }
        self.first = RedisServer(**settings)
        self._all: list[RedisServer] = [self.first]
        try:
            self.second = RedisServer(replicaof=f"127.0.0.1 {self.first.port}", **settings)
            self._all.append(self.second)
            self.wait_until_replicated()
            for _ in range(3):
                sentinel = SentinelProcess(self.first)
                self.sentinels.append(sentinel)
                self._all.append(sentinel)
            self._wait_for_sentinels(self.first)
            for sentinel in self.sentinels:
                # The rest of a failover takes ten seconds otherwise.
                sentinel.client().execute_command("SENTINEL", "DEBUG", "INFO-PERIOD", 500, "PUBLISH-PERIOD", 300)
        except BaseException:
            self.end()
            raise
        self._clients: list[Any] = []

    def _wait_for_sentinels(self, master: RedisServer) -> None:
        def all_know() -> bool:
            states = [each.admin.sentinel_master(MASTER) for each in self.sentinels]
            return all(
                (state["port"], state["num-slaves"], state["num-other-sentinels"]) == (master.port, 1, 2)
                for state in states
            )

        _until(all_know)

    def asks(self, **parameters: Any) -> Any:
        """redis-py's Sentinel, which asks these."""
        return redis.sentinel.Sentinel([("127.0.0.1", each.port) for each in self.sentinels], **parameters)

    def client(self, **parameters: Any) -> Any:
        """A client of the master, whoever it is."""
        return self.asks().master_for(MASTER, **parameters)

    def wait_until_replicated(self) -> None:
        """Wait until the replica has everything."""

        def is_even() -> bool:
            states = [each.admin.info("replication") for each in (self.first, self.second)]
            masters = [each for each in states if each["role"] == "master"]
            replicas = [each for each in states if each["role"] == "slave"]
            if len(masters) != 1 or len(replicas) != 1 or replicas[0]["master_link_status"] != "up":
                return False
            return bool(masters[0]["master_repl_offset"] == replicas[0]["slave_repl_offset"])

        _until(is_even)

    def wait_until_replica_has(self, offset: int) -> None:
        """Wait until the replica has what the master had written up to here."""
        _until(lambda: self.second.admin.info("replication")["slave_repl_offset"] >= offset)

    def repoint(self, server: RedisServer) -> None:
        """Have the sentinels take another server for the master, whatever they knew before."""
        for each in self.sentinels:
            client = each.client()
            client.sentinel_remove(MASTER)
            client.sentinel_monitor(MASTER, "127.0.0.1", server.port, 2)

    def slow_down(self) -> None:
        """Have the old master of the next failover stay a master for the ten seconds that it usually does."""
        for sentinel in self.sentinels:
            sentinel.client().execute_command("SENTINEL", "DEBUG", "PUBLISH-PERIOD", 2000)

    def fail_over(self) -> None:
        """Have the sentinels make the replica the master, as an operator does; wait until it is."""
        _until(self._is_accepted)
        self.wait_for_master(self.second)

    def _is_accepted(self) -> bool:
        try:
            self.sentinels[0].client().execute_command("SENTINEL", "FAILOVER", MASTER)
        except redis.exceptions.ResponseError as error:
            if "NOGOODSLAVE" in str(error):  # it has not heard of the replica for a moment
                return False
            raise
        return True

    def wait_for_master(self, server: RedisServer) -> None:
        """Wait until this one is the master, and the sentinels say so."""
        _until(lambda: all(each.admin.sentinel_master(MASTER)["port"] == server.port for each in self.sentinels))
        _until(lambda: server.admin.info("replication")["role"] == "master")

    def end(self) -> None:
        for each in self._all:
            each.end()


def _until(holds: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "the sentinels did not agree"
        time.sleep(0.01)


@contextmanager
def redis_sentinels(**settings: str):
    setup = SentinelSetup(**settings)
    try:
        yield setup
    finally:
        setup.end()
