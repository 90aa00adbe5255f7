"""The page of metrics: what several workers have counted becomes one, as Prometheus reads it."""

from __future__ import annotations

import os

import pytest
from prometheus_client.parser import text_string_to_metric_families

from greenq.metrics.catalogue import DURATIONS_MS, METRICS, OFFSETS, Labels
from greenq.metrics.shared import Area, SharedFile, read
from greenq.metrics.text import page


@pytest.fixture
def file():
    file = SharedFile()
    yield file
    os.close(file.fd)


@pytest.fixture
def area(file):
    return Area(file.fd, file.take())


def parsed(file, *, now_s=0.0):
    """What a Prometheus server makes of the page: (sample's name, its labels' values) -> value."""
    families = text_string_to_metric_families(page(read(file.fd), now_s=now_s))
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


def test_an_empty_file_is_an_empty_page(file):
    assert parsed(file) == {}


def test_every_metric_is_on_the_page_with_its_type(file, area):
    for labels in Labels:
        record = area.record(labels, *("x" for _ in labels.value))
        for index in range(128):
            record[index] = 1

    families = {family.name: family.type for family in text_string_to_metric_families(page(read(file.fd), now_s=0))}

    assert families == {
        metric.name.removesuffix("_total") if metric.type == "counter" else metric.name: metric.type
        for metric in METRICS
    }


def test_counters_and_gauges_of_all_workers_are_added_up(file):
    for _ in range(2):
        record = Area(file.fd, file.take()).record(Labels.ACTOR, "default", "work")
        record[OFFSETS["message_errors_total"]] = 2
        record[OFFSETS["messages_inprogress"]] = 3

    found = parsed(file)

    assert found["greenq_message_errors_total", "default", "work"] == 4
    assert found["greenq_messages_inprogress", "default", "work"] == 6


def test_of_the_dead_counters_stay_and_gauges_are_zero(file):
    number = file.take()
    record = Area(file.fd, number).record(Labels.ACTOR, "default", "work")
    record[OFFSETS["message_errors_total"]] = 2
    record[OFFSETS["messages_inprogress"]] = 3

    file.give_back(number)

    assert parsed(file)["greenq_message_errors_total", "default", "work"] == 2
    assert parsed(file)["greenq_messages_inprogress", "default", "work"] == 0


def test_what_only_one_worker_looks_at_is_not_added_up_and_is_absent_when_nobody_does(file):
    number = file.take()
    looks = Area(file.fd, number).record(Labels.QUEUE, "default")
    Area(file.fd, file.take()).record(Labels.QUEUE, "default")
    looks[OFFSETS["queue_ready_messages"]] = 17
    assert parsed(file)["greenq_queue_ready_messages", "default"] == 17

    file.give_back(number)

    assert ("greenq_queue_ready_messages", "default") not in parsed(file)


def test_a_histogram_has_cumulative_buckets_a_sum_and_a_count(file, area):
    record = area.record(Labels.ACTOR, "default", "work")
    first = OFFSETS["message_duration_milliseconds"]
    record[first], record[first + 1], record[first + len(DURATIONS_MS)] = 2, 1, 11.5

    found = parsed(file)

    name = "greenq_message_duration_milliseconds"
    assert [found[name + "_bucket", "default", "work", bound] for bound in ("5", "10", "25", "+Inf")] == [2, 3, 3, 3]
    assert found[name + "_sum", "default", "work"] == 11.5
    assert found[name + "_count", "default", "work"] == 3


def test_messages_are_those_that_ran_and_those_that_were_skipped(file, area):
    record = area.record(Labels.ACTOR, "default", "work")
    record[OFFSETS["messages_total"]] = 2
    record[OFFSETS["message_duration_milliseconds"] + 5] = 40

    assert parsed(file)["greenq_messages_total", "default", "work"] == 42


def test_a_hub_is_stalled_since_its_next_turn_was_due(file, area):
    record = area.record(Labels.WORKER, "1")
    record[OFFSETS["hub_stalled_milliseconds"]] = 100.0

    assert parsed(file, now_s=99.9)["greenq_hub_stalled_milliseconds", "1"] == 0
    assert parsed(file, now_s=102.5)["greenq_hub_stalled_milliseconds", "1"] == 2500


def test_labels_are_escaped(file, area):
    name = 'a "quoted"\\ line\nbreak'
    area.record(Labels.ACTOR, "default", name)

    assert ("greenq_message_errors_total", "default", name) in parsed(file)
