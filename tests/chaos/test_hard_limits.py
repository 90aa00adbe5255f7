"""Jobs that nothing inside their process can end: the process is replaced, and their neighbours only run once more."""

from __future__ import annotations

import pytest

from .ledger import WAYS_TO_BE_STUCK

#: What the supervisor says of each.
REASONS = {
    "spin_on": "a job kept it busy beyond its time limit and --hard-limit",
    "wait_on": "went on beyond its time limit of 1 s and --hard-limit",
    "hold_the_interpreter": "nothing in it moved for 2 s, two thirds of its lease",
}


@pytest.mark.parametrize("way", WAYS_TO_BE_STUCK)
def test_a_job_that_cannot_be_interrupted_costs_its_process_and_its_neighbours_one_more_run(run, place, way):
    lease = [] if place.kind == "rabbitmq" else ["--lease", "3s"]
    command = run("-p", "1", "-c", "30", "--hard-limit", "1s", *lease)
    command.wait_until_ready()
    place.send("hold", *((str(number),) for number in range(20)))
    place.wait_for("start", 20)

    place.send(way, ("guilty",))

    command.wait_until_ready(2)
    (line,) = command.wait_for(r"(ERROR\] Worker 1 \(PID \d+\) was killed by SIGKILL.*)")
    reason = REASONS[way].replace("2 s", "10 s") if place.kind == "rabbitmq" else REASONS[way]
    assert reason in line
    command.wait_for(r'app.py", line \d+ in ' + way if way != "wait_on" else "Current thread|most recent call first")
    place.let_go()
    place.wait_for("end", 21)
    assert place.count("end") == {**{str(number): 1 for number in range(20)}, "guilty": 1}
    assert place.count("start") == {**{str(number): 2 for number in range(20)}, "guilty": 2}
