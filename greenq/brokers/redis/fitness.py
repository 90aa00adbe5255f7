"""Whether a server is one to keep messages on.

``look`` asks it, ``judge`` decides; what it can live with it says in the log, with the remedy.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

import redis.exceptions

from ...errors import BrokerUnusable, ConnectionFailed
from .connection import Server, ask, try_connection

_OLDEST = (6, 2)


class Findings(NamedTuple):
    """What a server says of itself.

    Attributes:
      address(str): Of the server.
      info(dict | None): The answer to INFO; None if this user may not ask.
      save(str | None): When it takes snapshots, "" for never; None if this user may not ask.
    """

    address: str
    info: dict[str, str] | None
    save: str | None


def look(server: Server) -> Findings:
    """Ask a server about itself.

    Raises:
      BrokerUnusable: The user and password are wrong, or the user may not use the database.
      ConnectionFailed: It cannot be reached.

    May switch.
    """
    # By itself, so that a user who may not even connect (SELECT of a database needs a right) is
    # not taken for one who may not ask.
    try_connection(server)
    info = _ask_if_allowed(server, "INFO")
    save = _ask_if_allowed(server, "CONFIG", "GET", "save")
    return Findings(
        server.address,
        None if info is None else _named(info),
        save[1].decode("utf-8", "replace") if isinstance(save, list) and len(save) > 1 else None,
    )


def judge(findings: Findings, logger: logging.Logger, *, is_node: bool) -> None:
    """Refuse a server that cannot keep messages; log what may lose them.

    Parameters:
      findings(Findings): About the server.
      logger(logging.Logger): The broker's.
      is_node(bool): Whether it was reached by a cluster client.

    Raises:
      BrokerUnusable: It can never keep messages; the text says what to do.
      ConnectionFailed: It cannot keep messages now; so does the text.
    """
    address, info, save = findings
    if info is None:
        logger.warning(
            "Redis at %s lets this user not run INFO, so that nobody can say whether it is fit to keep messages. "
            "Allow it (+info), or see to it that it is version 6.2 or newer, evicts nothing and writes to disk.",
            address,
        )
        return
    if (why_never := _why_never(info, is_node)) is not None:
        raise BrokerUnusable(f"Redis at {address} {why_never}")
    if (why_not_now := _why_not_now(info)) is not None:
        raise ConnectionFailed(f"Redis at {address} {why_not_now}")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        logger.warning(
            "Redis at %s drops keys when its memory is full (maxmemory-policy %s): messages would be lost without "
            "a word. Set maxmemory-policy to noeviction.",
            address,
            policy,
        )
    if info.get("aof_enabled", "0") == "0":
        _tell_of_snapshots(address, save, logger)


def _why_never(info: dict[str, str], is_node: bool) -> str | None:
    mode = info.get("redis_mode") or info.get("server_mode")  # as Valkey has it
    if mode == "sentinel":
        return (
            "is a sentinel, which keeps no messages. Give the broker a client that asks it for the master: "
            "RedisBroker(client=redis.sentinel.Sentinel([(host, port)]).master_for(name))"
        )
    version = info.get("redis_version", "0")
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < _OLDEST:
        return f"is version {version}; greenq needs 6.2 or newer"
    if mode == "cluster" and not is_node:
        return (
            "is a node of a cluster. Give the broker a client that knows the others: "
            "RedisBroker(client=redis.RedisCluster(host, port))"
        )
    return None


def _why_not_now(info: dict[str, str]) -> str | None:
    if info.get("loading", "0") != "0":
        return "is still loading its data from disk, and takes no messages before it has. Try again later"
    if info.get("role") == "slave":
        return (
            f"is a replica of {info.get('master_host')}:{info.get('master_port')}, and takes no messages. Give the "
            "broker the master's address or, where Sentinel chooses the master, sentinel.master_for(name)"
        )
    return None


def _tell_of_snapshots(address: str, save: str | None, logger: logging.Logger) -> None:
    if save is None:
        logger.info(
            "Redis at %s keeps no append-only file, and lets this user not see whether it saves snapshots (CONFIG GET "
            "save): what it has not saved when it ends is lost.",
            address,
        )
    elif save:
        logger.info(
            "Redis at %s saves snapshots (%s) but keeps no append-only file: when it crashes, the messages since the "
            "last snapshot are lost. Set appendonly to yes to keep them.",
            address,
            save,
        )
    else:
        logger.warning(
            "Redis at %s writes nothing to disk: when it ends, all messages are lost. Set appendonly to yes, or at "
            "least save to when it is to take snapshots.",
            address,
        )


def _ask_if_allowed(server: Server, *command: str) -> bytes | list[bytes] | None:
    answer: bytes | list[bytes]
    try:
        answer = ask(server, *command)
    except redis.exceptions.ResponseError:  # where it was renamed away
        return None
    except ConnectionFailed as error:
        if isinstance(error.__cause__, redis.exceptions.NoPermissionError):
            return None
        raise
    return answer


def _named(answer: bytes | list[bytes]) -> dict[str, str]:
    """What INFO says, by name."""
    assert isinstance(answer, bytes)
    pairs = (line.partition(":") for line in answer.decode("utf-8", "replace").splitlines())
    return {name: value for name, separator, value in pairs if separator}
