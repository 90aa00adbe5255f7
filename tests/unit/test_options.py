"""The command line, the environment and the project's file as a value."""

from __future__ import annotations

import errno
import os
from textwrap import dedent

import pytest

from greenq import __version__
from greenq.cli import options as cli_options
from greenq.cli import pyproject
from greenq.cli.kinds import FLAG
from greenq.cli.options import OPTIONS, parse_options


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
    assert parse_options(["app", "-f", "a:b", "--fork", "c:d.e"]).fork_function == ("a:b", "c:d.e")


def test_durations_have_units_and_options_may_be_abbreviated():
    assert parse_options(["app", "--worker-sh=30s"]).worker_shutdown_timeout == 30_000
    assert parse_options(["app", "--worker-fork-timeout", "1_000"]).worker_fork_timeout == 1000
    assert parse_options(["app", "--worker-shutdown-timeout", "600_000"]).worker_shutdown_timeout == 600_000
    assert parse_options(["app", "--wait-for-broker", "0"]).wait_for_broker == 0
    assert parse_options(["app", "--lease", "1.5s", "--wait=2m"]).lease == 1_500
    assert parse_options(["app", "--max-age", "1d"]).max_age == 86_400_000


def test_a_limit_of_memory_that_the_machine_does_not_have_ends_the_command(monkeypatch, capsys):
    monkeypatch.setattr(cli_options, "machine_memory", lambda: 1 << 30)

    with pytest.raises(SystemExit):
        parse_options(["app", "--max-memory", "1G"])

    assert "--max-memory is 1024 MiB, and this machine, or its container, has 1024 MiB" in capsys.readouterr().err


def test_options_that_do_not_go_well_together_are_warned_of(monkeypatch):
    monkeypatch.setattr(cli_options, "machine_memory", lambda: 1 << 30)
    arguments = ["app", "-p", "3", "-c", "5", "--max-jobs", "4", "--max-memory", "400M"]

    (jobs, memory) = parse_options(arguments).warnings

    assert "--max-jobs 4 is less than --concurrency 5" in jobs
    assert "--processes 3 of up to --max-memory 400 MiB each are more than the 1024 MiB" in memory
    assert parse_options([*arguments, "-p", "2", "-c", "4"]).warnings == ()


def test_sizes_have_units(monkeypatch):
    monkeypatch.setattr(cli_options, "machine_memory", lambda: None)
    for text, size in (("512M", 512 << 20), ("2g", 2 << 30), ("1.5GiB", 3 << 29), ("64 MB", 64 << 20)):
        assert parse_options(["app", "--max-memory", text]).max_memory == size


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
        (["app", "--worker-fork-timeout", "9"], ["--worker-fork-timeout", "'9' is 9 ms", "10ms to 30m"]),
        (["app", "--worker-fork-timeout", "1_800_001"], ["--worker-fork-timeout", "10ms to 30m"]),
        (["app", "-f", "watch"], ["--fork-function", "'watch' is not the name of a function", "module:function"]),
        (["app", "--max-jobs", "0"], ["--max-jobs", "'0'", "1 or more"]),
        (["app", "--max-memory", "10M"], ["--max-memory", "'10M' is 10485760 bytes", "48M or more"]),
        (["app", "--max-memory", "512"], ["--max-memory", "'512' is 512 bytes", "48M or more"]),
        (["app", "--max-memory", "much"], ["--max-memory", "'much' is not a size", "512M"]),
        (["app", "--max-age", "500"], ["--max-age", "'500' is 500 ms", "1s or more"]),
        (["app", "--lease", "short"], ["--lease", "'short'", "30s"]),
        (["app", "--health", "localhost"], ["--health", "'localhost' is no address", "0.0.0.0:8080"]),
        (["app", "--health", "::1:80"], ["--health", "'::1:80' is no address", "[::]:8080"]),
        (["app", "--health", "65536"], ["--health", "ports are 0 to 65535"]),
        (["app", "--health", "0", "--control", "off"], ["--health asks", "--control off"]),
        (["src/app.py"], ["'src/app.py'", "name of a module"]),
        (["redis://me:secret@host"], ["argument BROKER: this is the URL of a broker", "GREENQ_BROKER_URL"]),
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
    assert "secret" not in output


def test_version_and_help_are_told_and_end_the_command_well(capsys):
    for argument, told in (("--version", f"greenq {__version__}"), ("--help", "exit codes:")):
        with pytest.raises(SystemExit) as end:
            parse_options([argument])
        assert end.value.code == 0
        assert told in capsys.readouterr().out


# -- environment and file


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch, tmp_path):
    """No variable of greenq's, and a current directory without a file."""
    for name in list(os.environ):
        if name.upper().startswith("GREENQ_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def project(tmp_path):
    """Writes the project's file."""

    def write(text, folder=tmp_path):
        (folder / "pyproject.toml").write_text(dedent(text))
        return folder / "pyproject.toml"

    return write


def refused(capsys, *arguments):
    """What the command says of a start with code 2."""
    with pytest.raises(SystemExit) as end:
        parse_options(arguments or ["app"])
    assert end.value.code == 2
    return capsys.readouterr().err


def test_every_option_is_named_alike_in_all_places():
    for option in OPTIONS:
        assert option.variable == f"GREENQ_{option.key.upper().replace('-', '_')}"
        if option.flags:
            assert option.flags[0] == f"--{option.key}"


def test_the_help_names_the_variable_of_every_option(capsys):
    with pytest.raises(SystemExit):
        parse_options(["--help"])
    told = " ".join(capsys.readouterr().out.split())

    assert [option.variable for option in OPTIONS if f"[{option.variable}]" not in told] == []


def test_the_command_line_comes_before_the_environment_and_that_before_the_file(monkeypatch, project):
    project("[tool.greenq]\nprocesses = 3\nconcurrency = 30\nlease = '3s'\n")
    monkeypatch.setenv("GREENQ_PROCESSES", "2")
    monkeypatch.setenv("GREENQ_CONCURRENCY", "20")

    options = parse_options(["app", "-p", "1"])

    assert (options.processes, options.concurrency, options.lease) == (1, 20, 3000)
    assert options.wait_for_broker == 30_000


def test_variables_say_the_same_as_options(monkeypatch):
    said = {
        "broker": "app:broker",
        "modules": "tasks, package.mail",
        "path": f"src{os.pathsep}lib",
        "queues": "a, b,a,",
        "pid_file": "pid",
        "log_file": "log",
        "skip_logging": "yes",
        "fork_function": "a:b,c:d",
        "worker_shutdown_timeout": "5m",
        "verbose": "1",
    }
    for name, text in said.items():
        monkeypatch.setenv(f"GREENQ_{name.upper()}", text)

    assert parse_options([]) == parse_options(
        [
            *("app:broker", "tasks", "package.mail", "--path", "src", "lib", "--queues", "a", "b"),
            *("--pid-file=pid", "--log-file=log", "--skip-logging", "--worker-shutdown-timeout=300000", "--verbose"),
            *("-f", "a:b", "-f", "c:d"),
        ]
    )


def test_a_variable_in_lower_case_and_a_flag_that_is_off_count(monkeypatch, project):
    project("[tool.greenq]\nverbose = true\n")
    monkeypatch.setenv("greenq_processes", "7")
    monkeypatch.setenv("GREENQ_VERBOSE", "off")

    assert (parse_options(["app"]).processes, parse_options(["app"]).verbose) == (7, False)


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.kind is FLAG], ids=lambda option: option.key)
def test_a_flag_of_the_file_or_the_environment_is_switched_off_on_the_command_line(monkeypatch, project, option):
    project(f"[tool.greenq]\n{option.key} = true\n")
    assert getattr(parse_options(["app"]), option.name) is True
    assert getattr(parse_options(["app", f"--no-{option.key}"]), option.name) is False

    monkeypatch.setenv(option.variable, "yes")
    assert getattr(parse_options(["app", f"--no-{option.key}"]), option.name) is False


def test_a_file_says_the_same_as_options_and_its_paths_begin_where_it_is(project, tmp_path, monkeypatch):
    path = project("""
        [tool.greenq]
        broker = "app:broker"
        modules = ["tasks"]
        path = ["src", "/lib"]
        queues = ["a", "b"]
        log_file = "logs/greenq.log"
        worker-shutdown-timeout = "5m"
        wait-for-broker = 500
        skip-logging = true
    """)
    (tmp_path / "below" / "it").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "below" / "it")

    options = parse_options([])

    assert options.settings_file == str(path)
    assert (options.broker, options.modules, options.queues) == ("app:broker", ("tasks",), ("a", "b"))
    assert options.path == (str(tmp_path / "src"), "/lib")
    assert options.log_file == str(tmp_path / "logs/greenq.log")
    assert (options.worker_shutdown_timeout, options.wait_for_broker, options.skip_logging) == (300_000, 500, True)


def test_the_nearest_file_with_the_table_counts(project, tmp_path, monkeypatch):
    package = tmp_path / "package"
    package.mkdir()
    project("[tool.greenq]\nprocesses = 3\n")
    project("[project]\nname = 'package'\ndependencies = ['greenq']\n", package)
    monkeypatch.chdir(package)
    assert parse_options(["app"]).processes == 3

    project("[tool.greenq]\nconcurrency = 4\n", package)
    assert parse_options(["app"]).concurrency == 4
    assert parse_options(["app"]).settings_file == str(package / "pyproject.toml")


def test_an_empty_list_says_nothing(monkeypatch, project):
    project("[tool.greenq]\nqueues = []\n")
    monkeypatch.setenv("GREENQ_QUEUES", " , ")

    assert parse_options(["app", "-Q"]).queues is None


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("GREENQ_PROCESSES", "0", "'0' is not a whole number of 1 or more"),
        ("greenq_lease", "30", "'30' is 30 ms, and a lease is 1s to 24h"),
        ("GREENQ_MODULES", "a,b.py", "'b.py' is not the name of a module"),
        ("GREENQ_VERBOSE", "loud", "'loud' is neither of 1 and 0"),
        ("GREENQ_PROM_PORT", "many", "'many' is not a whole number"),
    ],
)
def test_a_wrong_variable_is_named(monkeypatch, capsys, name, text, told):
    monkeypatch.setenv(name, text)

    assert f"environment variable {name}: {told}" in refused(capsys)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("processes = 0", "processes in [tool.greenq]: '0' is not a whole number of 1 or more"),
        ("processes = true", "processes in [tool.greenq]: True is not a whole number"),
        ("processes = 'two'", "processes in [tool.greenq]: 'two' is not a whole number"),
        ("lease = 1.5", "lease in [tool.greenq]: 1.5 is not a duration"),
        ("queues = 'a'", "queues in [tool.greenq]: 'a' is not a list: write it as [\"QUEUE\", ...]"),
        ("queues = [1]", "queues in [tool.greenq]: 1 is not a string"),
        ("verbose = 1", "verbose in [tool.greenq]: 1 is not true or false"),
        ("proceses = 1", "proceses in [tool.greenq] is no option (did you mean processes?)"),
        ("threads = 1", "threads in [tool.greenq] is no option (did you mean concurrency?)"),
        ("wholly-other = 1", "wholly-other in [tool.greenq] is no option\n"),
        ("prom_port = 1", "prom_port in [tool.greenq] can be set in the environment only, as GREENQ_PROM_PORT"),
        ("log-file = 'a'\nlog_file = 'b'", "log_file in [tool.greenq] is there twice"),
        ("processes = ", "cannot be read: Invalid value (at line 2, column 13)"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(project, capsys, line, told):
    path = project(f"[tool.greenq]\n{line}\n")

    assert f"error: {path}: {told}".replace(": cannot", " cannot") in refused(capsys)


def test_a_table_that_is_none_is_told(project, capsys):
    path = project("tool.greenq = 5\n")

    assert f"{path}: tool.greenq is not a table" in refused(capsys)


def test_a_file_that_does_not_speak_of_greenq_is_not_looked_into(project):
    project("[[[ this is no TOML")

    assert parse_options(["app"]).settings_file is None


@pytest.mark.parametrize("content", [None, "dependencies = [greenq"])
def test_a_file_further_up_that_cannot_be_read_is_passed_over_with_a_warning(
    project, tmp_path, monkeypatch, capsys, content
):
    path = project(content or "[tool.greenq]\n")
    if content is None:
        refuse_to_open(monkeypatch, path)
    assert f"{path} cannot be read: " in refused(capsys)  # as long as it is the one of the current directory

    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    options = parse_options(["app"])

    assert options.settings_file is None
    assert [f"{path} cannot be read: " in warning for warning in options.warnings] == [True]


def refuse_to_open(monkeypatch, path):
    """As the system does it, but for root too, whom it refuses nothing."""

    def refusing(file, *more):
        if file == str(path):
            raise PermissionError(errno.EACCES, "Permission denied")
        return open(file, *more)

    monkeypatch.setattr(pyproject, "open", refusing, raising=False)


def test_a_broken_file_further_up_that_has_the_table_ends_the_command(project, tmp_path, monkeypatch, capsys):
    path = project("[tool.greenq]\nprocesses =\n")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")

    assert f"{path} cannot be read: " in refused(capsys)


@pytest.mark.parametrize("line", ["modules = 'redis://me:secret@host'", "queues = 'redis://me:secret@host'"])
def test_a_url_in_the_wrong_place_of_a_file_is_told_without_its_password(project, capsys, line):
    project(f"[tool.greenq]\n{line}\n")

    told = refused(capsys)

    assert "redis://me:***@host' is not a list" in told
    assert "secret" not in told


def test_a_control_socket_in_a_file_is_beside_it_and_off_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for said, meant in (("run/control", str(tmp_path / "run/control")), ("off", "off")):
        (tmp_path / "pyproject.toml").write_text(f'[tool.greenq]\nbroker = "app"\ncontrol = "{said}"\n')
        assert parse_options([]).control == meant
