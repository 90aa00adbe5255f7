"""Where the servers are and how to get in: from a URL, or several, or pika's parameters.

Nothing here prints a password, nor lets pika do so.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import Any

import pika

#: The name by which an operator sees our connections.
_CONNECTION_NAME = "greenq"


def make_parameters(url: Any, parameters: Any, overrides: dict[str, Any]) -> list[pika.ConnectionParameters]:
    """pika's parameters of all servers, in the order in which they are to be tried.

    Parameters:
      url(str | list[str]): One URL or several, as a list or joined by semicolons. Comes first.
      parameters(list[dict] | pika.ConnectionParameters): The same in pika's words.
      overrides(dict): Of pika's parameters, which replace those of the URLs.

    Raises:
      RuntimeError: url or parameters is something else.
      TypeError: pika knows no such parameter.
      ValueError: A URL cannot be read.
    """
    if url is not None:
        made = [_from_url(each, overrides) for each in _urls(url)]
    elif parameters is not None:
        made = [_from_parameters(each, overrides) for each in _as_list(parameters)]
    else:
        made = [pika.ConnectionParameters(**overrides)]
    for each in made:
        each.client_properties = {
            "connection_name": f"{_CONNECTION_NAME} (pid {os.getpid()})",
            **(each.client_properties or {}),
        }
    return made


def _urls(url: Any) -> list[str]:
    if isinstance(url, str):
        url = [part.strip() for part in url.split(";") if part.strip()]
    if not isinstance(url, Sequence) or not url or not all(isinstance(each, str) for each in url):
        raise RuntimeError("url is an amqp:// URL, several joined by semicolons, or a list of them.")
    return list(url)


def _from_url(url: str, overrides: dict[str, Any]) -> pika.ConnectionParameters:
    try:
        if not url.lower().startswith(("amqp://", "amqps://")):
            raise ValueError("not of AMQP")
        made = pika.URLParameters(url)
    except Exception as error:
        # pika's own text may repeat the URL, with the password in it.
        scheme = url.partition("://")[0] if "://" in url else "no scheme"
        raise ValueError(
            f"A URL that begins with {scheme!r:.20} cannot be read ({type(error).__name__}): it has to look like "
            "amqp://user:password@host:5672/vhost, with special characters in user and password as %XX."
        ) from None
    for name, value in overrides.items():
        if name.startswith("_") or not isinstance(getattr(type(made), name, None), property):
            raise TypeError(f"pika's connection parameters have no {name!r}.")
        setattr(made, name, value)
    return made


def _as_list(parameters: Any) -> list[Any]:
    if isinstance(parameters, pika.connection.Parameters):
        return [parameters]
    if isinstance(parameters, (list, tuple)) and parameters:
        return list(parameters)
    raise RuntimeError("parameters is a list of dicts of pika's connection parameters, or one ConnectionParameters.")


def _from_parameters(given: Any, overrides: dict[str, Any]) -> pika.ConnectionParameters:
    if isinstance(given, pika.connection.Parameters):
        made = copy.copy(given)
        for name, value in overrides.items():
            setattr(made, name, value)
        return made
    if isinstance(given, dict):
        return pika.ConnectionParameters(**{**overrides, **given})
    raise RuntimeError("parameters is a list of dicts of pika's connection parameters, or one ConnectionParameters.")


def where(parameters: pika.ConnectionParameters) -> str:
    """A server's address and virtual host, for people; without user and password."""
    vhost = parameters.virtual_host
    return f"{parameters.host}:{parameters.port}{'' if vhost == '/' else '/' + vhost}"


def where_all(endpoints: Sequence[pika.ConnectionParameters]) -> str:
    return ", ".join(where(each) for each in endpoints)
