"""The lanes in which run-tests runs everything: nothing fails unseen, and nothing outlives them."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import psutil
import pytest

from tests.contract.brokers import CASES
from tests.contract.conftest import ON_GREENLETS, ON_THREADS
from tests.lanes import CHAOS, COMMAND_LANES, COMMANDS, IMAGE, IN_BOTH_WORLDS, LANES, OUTAGES, ROOT, WORLDS
from tests.support.waiting import PATIENCE_S, until

RUN = """
import sys
from tests.lanes import run, tell
folder, *paths = sys.argv[1:]
sys.exit(tell(run({path: [path, "--rootdir", folder, "-p", "no:cacheprovider"] for path in paths})))
"""


@pytest.fixture
def begin(tmp_path):
    """Starts lanes of one file of tests each, and ends them."""
    started = []

    def begin(**sources):
        paths = [tmp_path / f"test_{name}.py" for name in sources]
        for path, source in zip(paths, sources.values(), strict=True):
            path.write_text(source)
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(tmp_path), *map(str, paths)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate(timeout=PATIENCE_S)


def test_lanes_that_pass_end_well(begin):
    lanes = begin(one="def test_it(): pass", two="def test_it(): pass")

    output, _ = lanes.communicate(timeout=3 * PATIENCE_S)

    assert lanes.returncode == 0
    assert output.count(": passed after ") == 2


def test_one_failure_fails_the_whole_and_is_named_at_the_end(begin):
    lanes = begin(good="def test_it(): pass", bad="def test_that_fails(): assert not 'what was seen'")

    output, _ = lanes.communicate(timeout=3 * PATIENCE_S)

    assert lanes.returncode == 1
    end = output[output.index("= FAILURES =", output.index("1 failed")) :]
    assert "assert not 'what was seen'" in end
    assert "FAILED with exit code 1" in end
    assert "test_bad.py::test_that_fails" in end


def test_a_lane_that_dies_fails_the_whole(begin):
    lanes = begin(good="def test_it(): pass", dead="import os\ndef test_it(): os.kill(os.getpid(), 9)")

    output, _ = lanes.communicate(timeout=3 * PATIENCE_S)

    assert lanes.returncode == 1
    assert "FAILED with exit code -9" in output


SERVERS = """
import time
from tests.support.memcached_server import shared_memcached
from tests.support.redis_server import shared_server

def test_that_hangs():
    shared_server(), shared_memcached()
    time.sleep(3600)
"""


def test_lanes_and_their_servers_end_with_a_run_that_is_killed(begin):
    lanes = begin(hangs=SERVERS)
    main = psutil.Process(lanes.pid)
    names = ["memcached", "redis-server"]
    until(lambda: names == sorted(each.name() for each in main.children(recursive=True) if each.name() in names))
    below = main.children(recursive=True)

    lanes.send_signal(signal.SIGKILL)

    until(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in below))


@pytest.mark.parametrize("name", ["redis", "rabbitmq", "redis and rabbitmq", "stub"])
def test_every_test_is_in_one_lane(name):
    of_name = {
        word: word in name for chosen in LANES.values() for word in re.findall(r"\w*(?:redis|rabbitmq)\w*", chosen)
    }

    assert sum(eval(chosen, of_name) for chosen in LANES.values()) == 1


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_what_stops_rabbitmqs_servers_is_in_one_lane_and_no_other_has_it(world):
    outages, *others = world.lanes().values()

    assert [each for each in outages if (ROOT / each).is_file()] == OUTAGES
    for given in others:
        assert not set(OUTAGES) & set(given)
        assert {f"--ignore={each}" for each in OUTAGES} <= set(given)


def test_what_starts_commands_is_dealt_out_and_all_of_it_is_in_one_lane():
    lanes = WORLDS["threads"].lanes()
    dealt = [each for name, given in lanes.items() if name.startswith("commands") for each in given if is_file(each)]

    assert len(dealt) == len(set(dealt)) > COMMAND_LANES
    left = {str(path.relative_to(ROOT)) for path in (ROOT / COMMANDS).glob("test_*.py")} - set(dealt)
    assert all(re.search("_(redis|rabbitmq)_", each) for each in left)
    assert f"--ignore={COMMANDS}" in lanes["others"]
    assert f"--ignore={COMMANDS}" not in [*lanes["Redis"], *lanes["RabbitMQ"]]


def is_file(argument):
    return (ROOT / argument).is_file()


def test_what_kills_commands_is_in_lanes_of_its_own():
    for world in WORLDS.values():
        for given in world.lanes().values():
            assert CHAOS not in given
            assert f"--ignore={CHAOS}" in given or set(OUTAGES) <= set(given)
    rabbitmq, others = WORLDS["threads"].chaos().values()
    assert (rabbitmq[:3], others[:3]) == ([CHAOS, "-k", "rabbitmq"], [CHAOS, "-k", "not rabbitmq"])


def test_what_builds_the_image_is_in_a_lane_of_its_own():
    for world in WORLDS.values():
        for given in world.lanes().values():
            assert IMAGE not in given
            assert f"--ignore={IMAGE}" in given or "tests" not in given
    assert [given[0] for given in WORLDS["threads"].image().values()] == [IMAGE]


def test_what_is_in_time_is_looked_for_where_it_is():
    files = [each for each in WORLDS["threads"].in_time() if each.endswith(".py")]

    assert "tests/worker/test_time_limits.py" in files
    assert "tests/unit/test_encoder.py" not in files


def test_what_is_left_out_in_one_world_are_cases_of_the_contract():
    assert set(CASES) > ON_GREENLETS | ON_THREADS
    assert not ON_GREENLETS & ON_THREADS
    assert "tests/contract" in IN_BOTH_WORLDS
