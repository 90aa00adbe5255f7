"""Actors with lanes, in a module of their own: other processes have to find them."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import greenq
from greenq.brokers.stub import StubBroker
from greenq.errors import Interrupt, Shutdown
from greenq.middleware import CurrentMessage
from greenq.results import Results
from greenq.results.backends import StubBackend

broker = StubBroker(fail_fast_default=False)
broker.add_middleware(CurrentMessage())
broker.add_middleware(Results(backend=StubBackend(), store_results=True))

log = logging.getLogger("lane_actors")


class Plain(Exception):
    """Of the application's own."""


class Refused(Exception):
    """The same, but what pickle keeps of it is not what its __init__ takes."""

    def __init__(self, what: str, *, code: int) -> None:
        super().__init__(f"{what} was refused with {code}")
        self.code = code


def fail_with_local_class(text: str) -> None:
    class Local(ValueError):
        pass

    raise Local(text)


def unseal(pid: int) -> str:
    if pid != os.getpid():
        raise ValueError("it was sealed elsewhere")
    return "unsealed"


class Sealed:
    """What can be pickled, but is itself again only in its own process."""

    def __reduce__(self) -> Any:
        return unseal, (os.getpid(),)


def is_worth_it(failures: int, exception: BaseException) -> bool:
    return isinstance(exception, Plain)


def hold(path: str) -> None:
    """Tell that it has begun, and wait until the file `go` is beside."""
    Path(path).write_text(str(os.getpid()))
    while not Path(path).with_name("go").exists():
        time.sleep(0.01)


@greenq.actor(broker=broker, lane="process", max_retries=0)
def add(x: Any, y: Any) -> Any:
    return x + y


@greenq.actor(broker=broker, lane="process", max_retries=0)
def whoami() -> Any:
    message = CurrentMessage.get_current_message()
    assert message is not None
    return [os.getpid(), message.message_id, threading.current_thread() is threading.main_thread()]


@greenq.actor(broker=broker, lane="process", max_retries=0)
def remaining() -> Any:
    return greenq.remaining_ms()


@greenq.actor(broker=broker, lane="process", max_retries=0)
def tell_progress() -> Any:
    greenq.progress(1, total=10)
    return "told"


@greenq.actor(broker=broker, lane="process", max_retries=0)
def wait_for_go(path: str) -> int:
    hold(path)
    return os.getpid()


@greenq.actor(broker=broker, lane="process", max_retries=0, throws=(Plain, Refused, ValueError))
def expect(how: str) -> None:
    if how == "plain":
        raise Plain("as expected")
    if how == "refused":
        raise Refused("the cake", code=418)
    fail_with_local_class("nearby")


@greenq.actor(broker=broker, lane="process", retry_when=is_worth_it, min_backoff=1, max_backoff=1)
def fail_twice(path: str) -> str:
    with open(path, "a") as file:
        file.write("x")
    if len(Path(path).read_text()) < 3:
        raise Plain("not yet")
    return "at last"


@greenq.actor(broker=broker, lane="process", max_retries=1)
def ask_for_retry(path: str) -> str:
    if not Path(path).exists():
        Path(path).touch()
        raise greenq.Retry("soon", delay=1)
    return "again"


@greenq.actor(broker=broker, lane="process", max_retries=0)
def return_what_cannot_travel() -> Any:
    return threading.Lock()


@greenq.actor(broker=broker, lane="process", max_retries=0)
def return_what_does_not_arrive() -> Any:
    return Sealed()


@greenq.actor(broker=broker, lane="process", max_retries=0)
def send_another() -> None:
    add.send(1, 2)


@greenq.actor(broker=broker, lane="process", max_retries=0, time_limit=200)
def spin(path: str, how: str) -> None:
    try:
        if how == "python":
            x = 0
            while True:
                x += 1
        elif how == "regex":
            re.match(r"(a+)+$", "a" * 40 + "b")
        elif how == "sleep":
            time.sleep(60)
    finally:
        Path(path).write_text("cleaned up")


@greenq.actor(broker=broker, lane="process", max_retries=0)
def start_a_program(path: str) -> None:
    program = subprocess.Popen(["sleep", "600"])
    Path(path).write_text(str(program.pid))
    program.wait()


@greenq.actor(broker=broker, lane="process", max_retries=0, time_limit=200)
def swallow(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    while True:
        try:
            time.sleep(60)
        except Interrupt:
            continue


@greenq.actor(broker=broker, lane="process", max_retries=0)
def swallow_shutdown(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    while True:
        try:
            time.sleep(60)
        except Shutdown:
            continue


@greenq.actor(broker=broker, lane="process", max_retries=0)
def clean_up(path: str) -> None:
    try:
        hold(path)
    except Shutdown:
        Path(path).with_name("cleaned up").touch()
        raise


@greenq.actor(broker=broker, lane="process", max_retries=0)
def die(how: str) -> None:
    if how == "segfault":
        ctypes.string_at(0)
    elif how == "exit":
        os._exit(3)
    else:
        os.kill(os.getpid(), signal.SIGKILL)


@greenq.actor(broker=broker, lane="process", max_retries=1, min_backoff=1, max_backoff=1)
def die_once(path: str) -> str:
    if not Path(path).exists():
        Path(path).touch()
        os._exit(1)
    return "alive"


@greenq.actor(broker=broker, lane="process", max_retries=0)
def hold_the_interpreter(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    sum(range(10**15))  # looks at no signal


class Crunch(greenq.GenericActor):
    class Meta:
        broker = broker
        lane = "process"
        max_retries = 0

    def perform(self, x: int) -> list[int]:
        return [x * 2, os.getpid()]


@greenq.actor(broker=broker, lane="process", max_retries=0)
def fork_and_end(how: str) -> Any:
    import multiprocessing

    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=[600])
    child.start()
    if how == "terminate":
        child.terminate()
        child.join()
        return child.exitcode
    os._exit(5)


@greenq.actor(broker=broker, lane="process", max_retries=0)
def babble() -> None:
    os.write(3, b"What is this?" * 1000)


@greenq.actor(broker=broker, lane="process", max_retries=0)
def stand_still(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    os.kill(os.getpid(), signal.SIGSTOP)
