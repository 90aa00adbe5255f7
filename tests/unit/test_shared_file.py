"""The shared file in which workers count: areas, records, and who may go on from whom."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest

from greenq.metrics import shared
from greenq.metrics.catalogue import METRICS, OFFSETS, Kind, Labels, of
from greenq.metrics.shared import AREA, MOST_AREAS, MOST_RECORDS, OTHERS, Area, SharedFile, read
from tests.support.command import ROOT

ERRORS, RUNNING = OFFSETS["message_errors_total"], OFFSETS["messages_inprogress"]


@pytest.fixture
def file():
    file = SharedFile()
    yield file
    os.close(file.fd)


def opened(file):
    return Area(file.fd, file.take())


def records(file):
    return {record.label_values: record for record in read(file.fd)}


def test_what_one_writes_another_reads(file):
    area = opened(file)
    area.record(Labels.ACTOR, "default", "work")[ERRORS] += 3
    area.record(Labels.QUEUE, "default")

    found = records(file)

    assert found["default", "work"].values[ERRORS] == 3
    assert found["default", "work"].labels is Labels.ACTOR
    assert found["default",].labels is Labels.QUEUE


def test_the_same_labels_are_the_same_record(file):
    area = opened(file)

    area.record(Labels.WORKER, "1")[0] += 1
    area.record(Labels.WORKER, "1")[0] += 1

    assert records(file)["1",].values[0] == 2


def test_an_area_that_is_given_back_goes_to_the_next_one_who_goes_on_counting(file):
    number = file.take()
    dead = Area(file.fd, number).record(Labels.ACTOR, "default", "work")
    dead[ERRORS], dead[RUNNING] = 3, 7
    file.give_back(number)
    assert not records(file)["default", "work"].is_alive

    next_number = file.take()
    living = Area(file.fd, next_number).record(Labels.ACTOR, "default", "work")
    living[ERRORS] += 1

    assert next_number == number
    assert records(file)["default", "work"].is_alive
    assert (living[ERRORS], living[RUNNING]) == (4, 0)


def test_gauges_of_the_dead_count_no_more_until_they_are_zero(file):
    # The next one is started long before it opens its area.
    number = file.take()
    Area(file.fd, number).record(Labels.ACTOR, "default", "work")[RUNNING] = 7
    file.give_back(number)

    file.take()

    assert not records(file)["default", "work"].is_alive


def test_an_area_of_a_version_with_other_metrics_is_not_read_and_begun_anew(file, monkeypatch):
    number = file.take()
    with monkeypatch.context() as older:
        older.setattr(shared, "LAYOUT", 1)
        before = Area(file.fd, number)
        before.record(Labels.ACTOR, "default", "work")[ERRORS] = 3
        before.record(Labels.QUEUE, "default")
        assert len(records(file)) == 2
    assert records(file) == {}
    file.give_back(number)

    living = Area(file.fd, file.take()).record(Labels.ACTOR, "default", "work")
    living[ERRORS] += 1

    assert list(records(file)) == [("default", "work")]
    assert records(file)["default", "work"].values[ERRORS] == 1


def test_areas_of_the_living_are_apart(file):
    first, second = opened(file), opened(file)

    first.record(Labels.ACTOR, "default", "work")[ERRORS] = 1
    second.record(Labels.ACTOR, "default", "work")[ERRORS] = 2

    assert sorted(record.values[ERRORS] for record in read(file.fd)) == [1, 2]


def test_what_a_killed_process_has_counted_stays(file):
    number = file.take()
    program = (
        "import os, signal, sys; sys.path.insert(0, sys.argv[1])\n"
        "from greenq.metrics.shared import Area; from greenq.metrics.catalogue import Labels\n"
        "Area(int(sys.argv[2]), int(sys.argv[3])).record(Labels.WORKER, '1')[0] += 5\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )

    arguments = [sys.executable, "-c", program, str(ROOT), str(file.fd), str(number)]
    done = subprocess.run(arguments, pass_fds=(file.fd,), timeout=60, check=False)

    assert done.returncode == -9
    assert records(file)["1",].values[0] == 5


def test_names_of_any_kind_can_be_labels(file):
    area = opened(file)
    for name in ("naïve \N{SNOWMAN}", 'with "quotes"\n', "", "lone \ud800"):
        area.record(Labels.ACTOR, "default", name)[ERRORS] += 1

    assert len(records(file)) == 4


def test_names_that_are_too_long_are_counted_together(file):
    area = opened(file)

    area.record(Labels.ACTOR, "default", "a" * 2000)[ERRORS] += 1
    area.record(Labels.ACTOR, "default", "b" * 2000)[ERRORS] += 1

    assert records(file)[OTHERS, OTHERS].values[ERRORS] == 2


def test_names_that_are_too_many_are_counted_together(file):
    area = opened(file)

    for number in range(MOST_RECORDS + 10):
        area.record(Labels.ACTOR, "default", str(number))[ERRORS] += 1

    found = records(file)
    assert len(found) <= MOST_RECORDS
    assert sum(record.values[ERRORS] for record in found.values()) == MOST_RECORDS + 10
    assert os.fstat(file.fd).st_size == AREA


def test_workers_beyond_the_last_area_have_none(file):
    taken = [file.take() for _ in range(MOST_AREAS + 1)]

    assert taken[-1] is None
    assert None not in taken[:-1]


def test_a_file_in_a_directory_leaves_nothing_there(tmp_path):
    file = SharedFile(str(tmp_path))

    Area(file.fd, file.take()).record(Labels.WORKER, "1")

    assert list(tmp_path.iterdir()) == []
    assert len(records(file)) == 1
    os.close(file.fd)


def test_a_directory_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        SharedFile(str(tmp_path / "missing"))


def test_a_record_has_room_for_all_values():
    for labels in Labels:
        last, offset = of(labels)[-1]
        assert offset + last.width <= 128


def test_what_nobody_has_looked_at_is_not_known(file):
    record = opened(file).record(Labels.QUEUE, "default")

    for metric, offset in of(Labels.QUEUE):
        assert math.isnan(record[offset]) is (metric.kind is Kind.READING)


def test_no_two_metrics_have_one_name():
    names = [metric.name for metric in METRICS]

    assert len(set(names)) == len(names)
    assert all(metric.name.endswith("_total") is (metric.type == "counter") for metric in METRICS)
