"""What errors of redis-py mean for a message: nothing was done, or nobody knows.

An answer of the server is one of three: the command went wrong (a bug, raised as it is), the
server refused (nothing was done, so that doing it again is safe), or the slot is elsewhere in
the cluster (nothing was done either). Where there is no answer, it depends on whether the
command was sent.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import redis.exceptions

from ...errors import BrokerUnusable, ConnectionClosed, ConnectionError, ConnectionFailed

#: Beginnings of what a server says that did nothing. redis-py cuts some off, and makes classes of them.
_NOTHING_DONE = (
    *("READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK", "UNBLOCKED"),
    *("OOM", "MISCONF", "NOREPLICAS", "NOAUTH", "NOPERM", "WRONGPASS", "BUSY", "max number of clients"),
)

#: Errors that are an answer of the server.
REPLIES = (
    redis.exceptions.ResponseError,
    redis.exceptions.BusyLoadingError,
    redis.exceptions.AuthenticationError,
)
#: Answers of a node of a cluster that is in good health: the slot is elsewhere, or on its way.
REDIRECTIONS = (redis.exceptions.MovedError, redis.exceptions.AskError, redis.exceptions.TryAgainError)
#: Answers that say by their class that nothing was done.
_REFUSALS = (
    redis.exceptions.BusyLoadingError,
    redis.exceptions.AuthenticationError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.MasterDownError,
    redis.exceptions.NoPermissionError,
    redis.exceptions.ClusterDownError,
    *REDIRECTIONS,
)
#: Refusals that stay until somebody changes the password or the user's rights.
_LASTING = (redis.exceptions.AuthenticationError, redis.exceptions.NoPermissionError)
#: What a script says whose user lacks a right: as lasting, but without a code. It may have stored a payload
#: without its id, which nobody runs.
_NO_RIGHT_IN_SCRIPT = "The user executing the script can't"
#: What is said of a certificate that cannot be verified: so does this, until somebody changes one.
_UNVERIFIED = "CERTIFICATE_VERIFY_FAILED"
#: What to do, by a part of what was said; the first that is found counts.
_REMEDIES = {
    "Authentication required": "Give the broker username= and password=, or both in its URL",
    "invalid username-password": "Look at the user and the password that the broker was given",
    "'select' command": "Allow it (+select), or use database 0",
    _NO_RIGHT_IN_SCRIPT: "Give it the rights that docs/redis.md lists",
    "read only replica": "Give the broker the master's address, or sentinel.master_for(name)",
    "certificate has expired": "Renew the server's certificate",
    "certificate is not valid for": "Give the broker the host by a name that is in the server's certificate",
    _UNVERIFIED: "ssl_ca_certs=/path/to/ca.crt, in the URL or as an argument, names the authority "
    "that signed the server's certificate",
    "No such file or directory": "Look for the socket, or for the file that ssl_ca_certs names",
}
#: Errors of which nobody knows what they left behind.
_BROKEN = (
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    redis.exceptions.ClusterError,
    redis.exceptions.InvalidResponse,
    OSError,
)


@contextlib.contextmanager
def storing() -> Iterator[None]:
    """Have whoever wants to store told, where it cannot be found out where, that nothing was stored."""
    try:
        yield
    except ConnectionFailed as error:
        raise type(error)(f"{error}; nothing was stored") from error


def explain(error: BaseException, address: str, *, was_sent: bool, stores: bool = True) -> ConnectionError | None:
    """What an error of redis-py means; None if it is none of the connection.

    Parameters:
      address(str): Of the server.
      was_sent(bool): Whether the server may have got the command.
      stores(bool): Whether somebody wants to know if something was stored: at a start nobody does.
    """
    text = _said_by(error)
    so = ", so nothing was stored" if stores else ""
    if isinstance(error, redis.exceptions.InvalidResponse) and not was_sent:
        return BrokerUnusable(f"What answers at {address} is no Redis{so}: {text}. Look at the host and the port")
    if isinstance(error, REPLIES):
        # Of a script, older servers put the code inside a longer sentence.
        lacks_right = _NO_RIGHT_IN_SCRIPT in text
        if lacks_right or isinstance(error, _REFUSALS) or any(f"{code} " in text for code in _NOTHING_DONE):
            kind = BrokerUnusable if lacks_right or isinstance(error, _LASTING) else ConnectionFailed
            return kind(f"Redis at {address} refused{so}: {text}")
        return None
    if not isinstance(error, _BROKEN):
        return None
    if not was_sent:
        kind = BrokerUnusable if _UNVERIFIED in text else ConnectionFailed
        return kind(f"Redis at {address} cannot be reached{so}: {text}")
    return ConnectionClosed(
        f"Redis at {address} did not answer: {text}. What was to be stored may or may not be: doing it again can "
        "run a message twice"
    )


def _said_by(error: BaseException) -> str:
    """What an error says and what to do about it, without its full stop."""
    # A script's error ends with where in the script it was.
    text = (str(error) or type(error).__name__).partition(" script: ")[0].rstrip(".")
    remedy = next((remedy for part, remedy in _REMEDIES.items() if part in text), None)
    return text if remedy is None else f"{text}. {remedy}"
