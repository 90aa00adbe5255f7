"""A real RabbitMQ node for tests: on free ports of loopback, in a folder of its own.

    server = shared_server()          one node for the whole run, started by the first that asks
    with server.vhost() as vhost:     a place of its own for one test: nothing in it, gone afterwards

It ends with the tests, also if they are killed: everything runs in one process group with a
guard that reads from a pipe and kills the group when the pipe's other end is gone.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from .ports import free_ports

HOW_TO_GET_IT = (
    "rabbitmq-server is not installed, and these tests run against a real one. On Debian and Ubuntu: "
    "apt-get install rabbitmq-server"
)

#: Where Debian keeps the programs themselves; those in PATH are wrappers that change the user.
_PROGRAMS = Path("/usr/lib/rabbitmq/bin")

#: A node starts in 3 s on an idle machine, and needed a minute on one where everybody did.
_START_S = 100

#: What rabbitmqctl would ask the node for; it takes half a second of CPU to start.
_EXPRESSIONS = {
    "eval": "{}",
    # Who is told of alarms answers last, so that all connections have been told by then.
    "set_vm_memory_high_watermark": "vm_memory_monitor:set_vm_memory_high_watermark({}), rabbit_alarm:get_alarms().",
    "set_disk_free_limit": 'rabbit_disk_monitor:set_disk_free_limit("{}"), rabbit_alarm:get_alarms().',
}


class RabbitmqServer:
    """A node that runs.

    Parameters:
      settings(dict[str, str]): Of rabbitmq.conf.
    """

    def __init__(self, settings: dict[str, str] | None = None) -> None:
        if not (_PROGRAMS / "rabbitmq-server").exists() or shutil.which("epmd") is None:
            raise RuntimeError(HOW_TO_GET_IT)
        self.folder = Path(tempfile.mkdtemp(prefix="greenq-rabbitmq-"))
        self.port, self._api_port, self._dist_port, self._epmd_port = free_ports(4)
        self._guard = subprocess.Popen(
            ["sh", "-c", "read x; kill -9 0"], stdin=subprocess.PIPE, preexec_fn=lambda: os.setpgid(0, 0)
        )
        self._write_settings(settings or {})
        # Erlang would start one itself, which would outlive everything.
        self._epmd = self._spawn("epmd", "-address", "127.0.0.1", "-port", str(self._epmd_port))
        try:
            self.start()
        except BaseException:
            self.end()
            raise

    def _write_settings(self, settings: dict[str, str]) -> None:
        lines = {
            "listeners.tcp.1": f"127.0.0.1:{self.port}",
            "management.tcp.ip": "127.0.0.1",
            "management.tcp.port": str(self._api_port),
            "disk_free_limit.absolute": "1MB",
            "log.file.level": "warning",
            **settings,
        }
        (self.folder / "rabbitmq.conf").write_text("".join(f"{name} = {value}\n" for name, value in lines.items()))
        (self.folder / "env.conf").touch()
        (self.folder / "plugins").write_text("[rabbitmq_management].\n")

    @property
    def _environment(self) -> dict[str, str]:
        folder = self.folder
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),  # for the cookie
            "LANG": "C.UTF-8",
            "ERL_CRASH_DUMP": str(folder / "crash.dump"),
            "detached": "1",  # the node is the process that is started, with no shell around it
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"greenq-{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} "
            # Its threads sleep when they have nothing to do: others need the processor.
            "+sbwt none +sbwtdcpu none +sbwtdio none",
        }

    def _spawn(self, *command: str) -> subprocess.Popen[bytes]:
        group = self._guard.pid
        with (self.folder / "output").open("ab") as output:
            return subprocess.Popen(
                command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=lambda: os.setpgid(0, group),
            )

    # -- its life

    def start(self) -> None:
        """Start it, for the first time or again, on the same ports with the same files."""
        self.process = self._spawn(str(_PROGRAMS / "rabbitmq-server"))
        deadline = time.monotonic() + _START_S
        while not self._answers():
            assert self.process.poll() is None, f"rabbitmq-server ended:\n{self._log()}"
            assert time.monotonic() < deadline, f"rabbitmq-server does not answer:\n{self._log()}"
            time.sleep(0.02)

    def start_again(self) -> None:
        """Start it if somebody has left it stopped."""
        if self.process.poll() is not None:
            self.start()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                if connection.recv(1) != b"\x01":
                    return False
            self.api("GET", "overview")
        except (OSError, URLError):
            return False
        return True

    def _log(self) -> str:
        files = [self.folder / "output", *sorted(self.folder.glob("log/*.log"))]
        return "\n".join(file.read_text(errors="replace")[-3000:] for file in files if file.exists())

    def stop(self, signum: int = signal.SIGTERM) -> None:
        """Stop it; what it has on disk is left for the next start."""
        self.process.send_signal(signal.SIGCONT)
        if signum == signal.SIGKILL:
            # What was declared in the last second is not on its disk, though it has said so, and half of a queue
            # or of a virtual host answers nothing after that. What was confirmed is, and is what is tested.
            self.evaluate("mnesia:sync_log().")
        self.process.send_signal(signum)
        self.process.wait(_START_S)

    def end(self) -> None:
        """Stop it for good, at once, with everything that it started."""
        self._guard.kill()
        os.killpg(self._guard.pid, signal.SIGKILL)
        for process in (self._guard, self._epmd, self.process):
            process.wait(_START_S)
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- the operator's side

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """What the management API answers."""
        request = Request(f"http://127.0.0.1:{self._api_port}/api/{path}", method=method)
        request.add_header("Authorization", "Basic " + base64.b64encode(b"guest:guest").decode())
        request.add_header("Content-Type", "application/json")
        data = None if body is None else json.dumps(body).encode()
        with urlopen(request, data, timeout=_START_S) as response:
            answer = response.read()
        return json.loads(answer) if answer else None

    def evaluate(self, expression: str) -> str:
        """What the node itself answers to an expression of Erlang that ends with a full stop. Takes no time."""
        cookie = (self.folder / ".erlang.cookie").read_text()
        command = ["erl_call", "-sname", f"greenq-{self.port}@localhost", "-c", cookie, "-e"]
        ends = time.monotonic() + _START_S
        while True:
            done = subprocess.run(
                command,
                env=self._environment,
                input=f"{expression}\n",
                capture_output=True,
                text=True,
                timeout=_START_S,
            )
            # On a busy machine a node may be too slow for the handshake. Nothing was evaluated then.
            if "failed to connect to node" not in done.stdout + done.stderr or time.monotonic() >= ends:
                break
            time.sleep(0.1)  # between two tries: a node that is busy tells nobody when it is not
        answer = re.fullmatch(r"\{ok, (.*)\}", done.stdout.strip(), re.DOTALL)
        assert answer, done.stdout + done.stderr
        return answer[1]

    def messages_in(self, vhost_name: str, queue_name: str) -> int:
        """How many messages a queue has at this moment, ready and in hand; what the API tells is seconds old."""
        queue = f'rabbit_misc:r(<<"{vhost_name}">>, queue, <<"{queue_name}">>)'
        info = "rabbit_amqqueue:info(Queue, [messages])"
        return int(self.evaluate(f"{{ok, Queue}} = rabbit_amqqueue:lookup({queue}), element(2, hd({info}))."))

    def control(self, *arguments: str) -> str:
        """Do what rabbitmqctl does. Where it has to be run, that takes half a second of CPU."""
        name, *rest = arguments
        if name in _EXPRESSIONS:
            return self.evaluate(_EXPRESSIONS[name].format(*rest))
        command = [str(_PROGRAMS / "rabbitmqctl"), "--quiet", *arguments]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=_START_S)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def vhost(self) -> Iterator[Vhost]:
        """A new virtual host, deleted after the block with all that is in it."""
        vhost = self.new_vhost()
        try:
            yield vhost
        finally:
            self.api("DELETE", f"vhosts/{vhost.name}")

    def new_vhost(self) -> Vhost:
        """A new virtual host, which is there until the node ends."""
        vhost = Vhost(self, "test-" + uuid.uuid4().hex[:12])
        self.api("PUT", f"vhosts/{vhost.name}", {})
        self.api("PUT", f"permissions/{vhost.name}/guest", {"configure": ".*", "write": ".*", "read": ".*"})
        return vhost


class Vhost:
    """A virtual host, and what is in it.

    Parameters:
      server(RabbitmqServer): Where it is.
      name(str): Its name.
    """

    def __init__(self, server: RabbitmqServer, name: str) -> None:
        self.server = server
        self.name = name

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.server.port}/{self.name}"

    def queue(self, name: str) -> dict[str, Any] | None:
        """What the server knows of a queue; None if there is none."""
        try:
            found: dict[str, Any] = self.server.api("GET", f"queues/{self.name}/{quote(name)}")
        except HTTPError as error:
            if error.code == 404:
                return None
            raise
        return found

    def connections(self) -> list[str]:
        """The names of the connections to it. New ones are shown after a moment."""
        return [each["name"] for each in self.server.api("GET", f"vhosts/{self.name}/connections") if "name" in each]

    def close_connection(self, name: str) -> None:
        """Close one of them, as an operator does; nothing happens if it is gone."""
        with contextlib.suppress(HTTPError):
            self.server.api("DELETE", f"connections/{quote(name)}")

    def close_connections(self) -> None:
        """Close all connections to it, as an operator does."""
        found = f'rabbit_connection_tracking:list(<<"{self.name}">>)'
        self.server.evaluate(f'rabbit_connection_tracking:close_connections({found}, "closed by a test", 0).')


@contextmanager
def rabbitmq_server(settings: dict[str, str] | None = None) -> Iterator[RabbitmqServer]:
    server = RabbitmqServer(settings)
    try:
        yield server
    finally:
        server.end()


_shared: RabbitmqServer | None = None


def shared_server() -> RabbitmqServer:
    """The node that most tests share, started by the first; each takes a vhost of its own.

    Whoever stops it has a lane in which nobody else uses it meanwhile, and may leave it stopped.
    """
    global _shared
    if _shared is None:
        import atexit

        _shared = RabbitmqServer()
        atexit.register(_shared.end)
    _shared.start_again()
    return _shared
