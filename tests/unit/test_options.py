"""The command line as a value."""

from __future__ import annotations

import pytest

from greenq import __version__
from greenq.cli.options import parse_options


def test_defaults_need_nothing_but_the_broker():
    options = parse_options(["app"])

    assert (options.broker, options.modules, options.path, options.queues) == ("app", (), (".",), None)
    assert (options.concurrency, options.worker_shutdown_timeout, options.verbose) == (100, 600_000, 0)
    assert (options.wait_for_broker, options.lease) == (30_000, None)
    assert options.processes >= 1
    assert not options.skip_logging


def test_modules_may_stand_between_and_after_options():
    options = parse_options(["app:broker", "-p", "2", "tasks", "--verbose", "package.mail"])

    assert options.broker == "app:broker"
    assert options.modules == ("tasks", "package.mail")


@pytest.mark.parametrize("name", ["-c", "-t", "--concurrency", "--threads", "--conc"])
def test_concurrency_has_the_name_threads_too(name):
    assert parse_options(["app", name, "500"]).concurrency == 500


def test_lists_take_several_words_and_may_be_repeated():
    options = parse_options(["app", "-Q", "a", "b", "-Q", "c", "a", "-P", "src", "--path=lib"])

    assert options.queues == ("a", "b", "c")
    assert options.path == ("src", "lib")


def test_durations_have_units_and_options_may_be_abbreviated():
    assert parse_options(["app", "--worker-sh=30s"]).worker_shutdown_timeout == 30_000
    assert parse_options(["app", "--worker-shutdown-timeout", "600_000"]).worker_shutdown_timeout == 600_000
    assert parse_options(["app", "--wait-for-broker", "0"]).wait_for_broker == 0
    assert parse_options(["app", "--lease", "1.5s", "--wait=2m"]).lease == 1_500


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], ["BROKER is missing", "app:broker"]),
        (["-Q", "a", "app"], ["BROKER is missing", "before --path and --queues"]),
        (["app", "-p", "0"], ["--processes/-p", "'0'", "1 or more"]),
        (["app", "-c", "many"], ["--concurrency", "'many'", "1 or more"]),
        (["app", "--worker-shutdown-timeout", "soon"], ["--worker-shutdown-timeout", "'soon'", "30s"]),
        (["app", "--wait-for-broker", "-1"], ["--wait-for-broker"]),
        (["app", "--wait-for-broker", "long"], ["--wait-for-broker", "'long'", "30s"]),
        (["app", "--lease", "30"], ["--lease", "'30' is 30 ms", "1s to 24h", "plain number is milliseconds"]),
        (["app", "--lease", "25h"], ["--lease", "'25h'", "1s to 24h"]),
        (["app", "--lease", "short"], ["--lease", "'short'", "30s"]),
        (["src/app.py"], ["'src/app.py'", "name of a module"]),
        ([":broker"], ["':broker'", "name of a module"]),
        (["app", "--no-such-option"], ["--no-such-option"]),
    ],
)
def test_a_wrong_command_line_is_told_with_what_is_allowed(arguments, told, capsys):
    with pytest.raises(SystemExit) as end:
        parse_options(arguments)

    assert end.value.code == 2
    output = capsys.readouterr().err
    assert [text for text in told if text not in output] == []


def test_version_and_help_are_told_and_end_the_command_well(capsys):
    for argument, told in (("--version", f"greenq {__version__}"), ("--help", "exit codes:")):
        with pytest.raises(SystemExit) as end:
            parse_options([argument])
        assert end.value.code == 0
        assert told in capsys.readouterr().out
