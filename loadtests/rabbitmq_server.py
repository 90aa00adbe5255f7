"""A RabbitMQ node for a benchmark: on free ports of loopback, in a folder of its own.

With no plug-ins and otherwise as it comes. It ends with the benchmark, on Linux also if that is
killed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from ending import die_with_parent

HOW_TO_GET_IT = "rabbitmq-server is not installed. On Debian and Ubuntu: apt-get install rabbitmq-server"
#: Where Debian keeps the program itself; the one in PATH is a wrapper that changes the user.
_PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_LIMIT_S = 60


class Server:
    """A node that runs.

    Parameters:
      port(int): Of loopback.
      pid(int): Of its process.
    """

    def __init__(self, port: int, pid: int) -> None:
        self.port = port
        self.pid = pid
        self.url = f"amqp://guest:guest@127.0.0.1:{port}"

    def cpu_s(self) -> float:
        """The seconds of CPU that it has used so far."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)


@contextlib.contextmanager
def rabbitmq_server() -> Iterator[Server]:
    """An empty node, which has ended afterwards."""
    epmd = shutil.which("epmd")
    if not _PROGRAM.exists() or epmd is None:
        raise SystemExit(HOW_TO_GET_IT)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="greenq-rabbitmq-")))
        port, dist_port, epmd_port = _free_ports(3)
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{port}\ndisk_free_limit.absolute = 1MB\nlog.file.level = warning\n"
        )
        (folder / "env.conf").touch()
        (folder / "plugins").write_text("[].\n")
        environment = _environment(folder, port, dist_port, epmd_port)
        # Erlang would start one itself, which would outlive everything.
        stack.enter_context(_program([epmd, "-address", "127.0.0.1", "-port", str(epmd_port)], environment, folder))
        process = stack.enter_context(_program([str(_PROGRAM)], environment, folder))
        _wait_until_it_answers(port, process, folder)
        yield Server(port, process.pid)


def _environment(folder: Path, port: int, dist_port: int, epmd_port: int) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),  # for the cookie
        "LANG": "C.UTF-8",
        "ERL_CRASH_DUMP": str(folder / "crash.dump"),
        "detached": "1",  # the node is the process that is started, with no shell around it
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"greenq-{port}@localhost",
        "RABBITMQ_DIST_PORT": str(dist_port),
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "env.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
    }


@contextlib.contextmanager
def _program(command: list[str], environment: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs, in a group of its own, so that ctrl-C does not reach it."""
    with open(folder / "output", "ab") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(_LIMIT_S)


def _wait_until_it_answers(port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    ends = time.monotonic() + _LIMIT_S
    while not _answers(port):
        if process.poll() is not None or time.monotonic() > ends:
            logs = [folder / "output", *sorted(folder.glob("log/*.log"))]
            text = "\n".join(log.read_text(errors="replace") for log in logs)
            raise SystemExit(f"rabbitmq-server does not answer. Its logs end with:\n{text[-4000:]}")
        time.sleep(0.02)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(1) == b"\x01"
    except OSError:
        return False


def _free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody has now, all different."""
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [int(listener.getsockname()[1]) for listener in listeners]
