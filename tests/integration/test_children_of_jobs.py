"""Children that jobs fork, as multiprocessing does on Linux: seen from outside."""

from __future__ import annotations

import pytest

from tests.support.command import APP as HOLDING_APP
from tests.support.command import enqueue, write_module
from tests.support.waiting import until

APP = (
    HOLDING_APP
    + """
import asyncio, multiprocessing, socket, subprocess, threading
fork = multiprocessing.get_context("fork")

@greenq.actor(max_retries=0)
def neighbour(seconds):
    log.info("neighbour began")
    time.sleep(seconds)
    with open(HERE / "ended", "a") as file:
        file.write("sync %d\\n" % os.getpid())

@greenq.actor(max_retries=0)
async def coroutine(seconds):
    log.info("coroutine began")
    await asyncio.sleep(seconds)
    with open(HERE / "ended", "a") as file:
        file.write("async %d\\n" % os.getpid())

@greenq.actor(lane="process", max_retries=0)
def in_process(seconds):
    log.info("process began")
    time.sleep(seconds)
    log.info("process ended")

def waits(results):
    thread = threading.Thread(target=time.sleep, args=[1.0])
    thread.start()
    thread.join()
    host = socket.gethostbyname("localhost")
    results.put([host, subprocess.run(["echo", "hi"], capture_output=True, text=True).stdout])

def sends():
    say.send("from a child")

@greenq.actor(max_retries=0)
def forking():
    results = fork.Queue()
    child = fork.Process(target=waits, args=[results])
    child.start()
    log.info("the child says %r", results.get())
    child.join()
    sender = fork.Process(target=sends)
    sender.start()
    sender.join()
    idle = fork.Process(target=time.sleep, args=[600])
    idle.start()
    idle.terminate()
    idle.join()
    log.info("children ended with %d, %d and %d", child.exitcode, sender.exitcode, idle.exitcode)

@greenq.actor(max_retries=0)
def lost():
    child = os.fork()
    if child == 0:
        return  # and so into greenq's own code
    log.info("the child that returned ended with %d", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

@greenq.actor(max_retries=0)
def crashing():
    import ctypes
    child = fork.Process(target=ctypes.string_at, args=[0])
    child.start()
    child.join()
    log.info("the child that crashed ended with %d", child.exitcode)
"""
)


@pytest.fixture
def command(run, folder):
    write_module(folder, "app", APP)
    command = run("app", "-p", "1")
    command.wait_until_ready()
    return command


def test_children_run_nothing_of_their_parents_other_jobs(command, folder):
    for actor in ("neighbour", "coroutine"):
        enqueue(folder, actor, 0.5)
    enqueue(folder, "in_process", 0.5)
    for name in ("neighbour", "coroutine", "process"):
        command.wait_for(f"{name} began")

    enqueue(folder, "forking")
    command.wait_for(r"the child says \['127.0.0.1', 'hi\\n'\]")
    command.wait_for("process ended")
    command.wait_for("children ended with 0, 0 and -15")
    command.wait_for("said from a child")

    until(lambda: {"sync", "async"} <= set((folder / "ended").read_text().split()))
    ended = (folder / "ended").read_text().split()
    assert sorted(ended[::2]) == ["async", "sync"]
    assert len(set(ended[1::2])) == 1


def test_a_signal_for_a_child_is_not_one_for_its_worker(command, folder):
    enqueue(folder, "forking")
    command.wait_for("children ended with 0, 0 and -15")
    enqueue(folder, "say", "here")
    command.wait_for("said here")

    assert not command.matches("Received SIGTERM")


def test_a_child_that_returns_from_its_job_ends_there(command, folder):
    enqueue(folder, "lost")
    command.wait_for("the child that returned ended with 1")


def test_the_crash_of_a_child_is_nothing_of_its_workers(command, folder):
    enqueue(folder, "crashing")
    command.wait_for("the child that crashed ended with -11")
    enqueue(folder, "say", "here")
    command.wait_for("said here")
