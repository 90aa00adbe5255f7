"""The link check of examples/ against a small tree of files, with processes killed and stopped.

What is compared is the truth of others: the files that are there, and what the server of
the tree says that it was asked, never the crawl's own word alone.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import psutil
import pytest

from tests.support.processes import end_with_this_process
from tests.support.rabbitmq_server import shared_server
from tests.support.redis_server import redis_server

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 60
TIME_LIMIT_MS = 1500

#: What the server counts for a fetch that it never answered.
HUNG = 0
#: A hanging page is tried again once. A failing one fails twice at most, and is tried until it is there.
MOST_HUNG = 2

FOLDERS = 12
FILES = 25


@pytest.fixture
def tree(tmp_path):
    """A folder of 12 folders, each within the other or beside it, of 25 files each."""
    root = tmp_path / "tree"
    folder = root
    for number in range(FOLDERS):
        parent = folder if number % 3 else root
        folder = parent / f"folder {number}"
        folder.mkdir(parents=True)
        for file in range(FILES - 1):
            (folder / f"page-{file}.txt").write_text(f"This is page {file}.\n")
        (folder / "index.html").write_text('<a href="page-0.txt">there</a> <a href="/gone.html">not there</a>')
    return root


class Site:
    """The tree's server, in a process of its own."""

    def __init__(self, tree, latency):
        self.tree = tree
        command = [sys.executable, "-m", "examples.linkcheck.server", "--root", str(tree), "--latency", latency]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, text=True, preexec_fn=end_with_this_process
        )
        self.url = self.process.stdout.readline().split()[-1]

    def counts(self):
        with urlopen(self.url + ".counts", timeout=10) as response:
            return json.load(response)

    def answers(self):
        return {path.replace("%20", " "): answers for path, answers in self.counts()["answers"].items()}

    def files(self):
        """The paths of all pages that are there."""
        paths = {"/"}
        for place in self.tree.rglob("*"):
            paths.add(f"/{place.relative_to(self.tree)}" + ("/" if place.is_dir() else ""))
        return paths

    def stop(self):
        self.process.terminate()
        self.process.communicate(timeout=10)


@pytest.fixture
def serve(tree):
    sites = []

    def serve(latency):
        sites.append(Site(tree, latency))
        return sites[-1]

    yield serve
    for site in sites:
        site.stop()


@pytest.fixture
def crawl(tmp_path):
    """Starts link checks whose queue and record are in one folder; ends all their processes."""
    started = []

    def crawl(*arguments):
        command = [sys.executable, "-m", "examples.linkcheck", "--dir", str(tmp_path / "crawl"), *arguments]
        command += ["--time-limit", str(TIME_LIMIT_MS)]
        environment = {name: value for name, value in os.environ.items() if name != "GREENQ_BROKER_URL"}
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=end_with_this_process,
        )
        started.append(psutil.Process(process.pid))
        return process

    yield crawl
    for process in started:
        if process.is_running():
            for each in [*process.children(recursive=True), process]:
                each.kill()


@pytest.fixture
def server():
    with redis_server() as server:
        yield server


@pytest.fixture(params=["file", "redis"])
def broker(request):
    """Arguments that choose the broker: by its URL alone."""
    return [] if request.param == "file" else ["--broker", request.getfixturevalue("server").url]


@pytest.fixture
def pages(tmp_path):
    """Reads the record: path -> (state, attempts)."""

    def pages():
        connection = sqlite3.connect(tmp_path / "crawl" / "record.db")
        rows = connection.execute("SELECT url, state, attempts FROM pages").fetchall()
        connection.close()
        return {urlsplit(url).path.replace("%20", " "): (state, attempts) for url, state, attempts in rows}

    return pages


def finish(process):
    """What it printed, once it has ended well."""
    output, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, output
    return output


def wait_until(condition, process):
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def workers(process):
    """The worker processes of a link check: the children of its greenq-worker."""
    return [each for each in psutil.Process(process.pid).children(recursive=True) if each.ppid() != process.pid]


def assert_complete(site, pages, output):
    """Every page that is there was fetched to its end, and the report says so."""
    answers, states = site.answers(), pages()
    hanging = {path for path, seen in answers.items() if HUNG in seen}
    broken = set(answers) - site.files()
    assert site.files() <= set(answers)
    assert set(states) == set(answers)
    for path in answers:
        expected = "timed out" if path in hanging else "broken" if path in broken else "checked"
        assert states[path][0] == expected, path
    assert row(output, "pages") == str(len(answers))
    assert row(output, "broken links") == str(len(broken))
    assert row(output, "timed out") == str(len(hanging))


def row(output, name):
    """The first word beside this name in the table."""
    rows = [line.split(name)[1].split()[0] for line in output.splitlines() if line.startswith(f"  {name}  ")]
    assert len(rows) == 1, output
    return rows[0]


def fetched_too_often(answers, *, cut):
    """Pages fetched more often than their retries and the number of cuts allow."""
    return {
        path: seen
        for path, seen in answers.items()
        if seen.count(HUNG) > MOST_HUNG + cut or len([each for each in seen if each not in (HUNG, 500)]) > 1 + cut
    }


def test_a_crawl_finds_every_page_once(serve, crawl, pages):
    site = serve("5-20")

    output = finish(crawl(site.url))

    assert_complete(site, pages, output)
    assert fetched_too_often(site.answers(), cut=0) == {}
    assert "/gone.html" in output


def test_one_url_puts_the_crawl_on_redis(serve, crawl, pages, server, tmp_path):
    site = serve("5-20")

    output = finish(crawl(site.url, "--broker", server.url))

    assert_complete(site, pages, output)
    assert fetched_too_often(site.answers(), cut=0) == {}
    assert server.client().info("commandstats")["cmdstat_evalsha"]["calls"] > 0
    assert not (tmp_path / "crawl" / "queue.db").exists()


def test_crawls_on_one_server_do_not_mix(tree, serve, crawl, pages, server):
    stopped = crawl("--root", str(tree), "--latency", "100-300", "--concurrency", "20", "--broker", server.url)
    stopped.stdout.readline()  # it has begun
    stopped.send_signal(signal.SIGTERM)
    stopped.communicate(timeout=LIMIT_S)
    site = serve("5-20")

    output = finish(crawl(site.url, "--dir", str(tree.parent / "other"), "--broker", server.url))

    assert row(output, "pages") == str(len(site.answers()))


def test_a_broker_that_is_away_is_told_without_a_traceback(tree, crawl, server):
    server.stop()
    process = crawl("--root", str(tree), "--broker", server.url)
    output, _ = process.communicate(timeout=LIMIT_S)

    assert process.returncode == 1
    assert "The queue cannot be used: " in output
    assert f"Redis at 127.0.0.1:{server.port} cannot be reached" in output
    assert "Traceback" not in output


def test_the_password_of_a_broker_is_told_nowhere(serve, crawl, server, tmp_path):
    server.client().config_set("requirepass", "secret")
    site = serve("5-20")

    output = finish(crawl(site.url, "--broker", server.url.replace("//", "//:secret@")))

    assert f"redis://:***@127.0.0.1:{server.port}" in output
    assert "secret" not in output + (tmp_path / "crawl" / "worker.log").read_text()


def test_failing_pages_are_retried_and_hanging_ones_given_up(serve, crawl, pages):
    site = serve("5-20")

    output = finish(crawl(site.url))

    answers = site.answers()
    kinds = Counter("hanging" if HUNG in seen else "failing" for seen in answers.values() if len(seen) > 1)
    assert kinds["failing"] > 0
    assert kinds["hanging"] > 0
    assert {tuple(seen) for seen in answers.values() if HUNG in seen} == {(HUNG, HUNG)}
    assert {seen[-1] for seen in answers.values() if 500 in seen} <= {200, 404}
    assert {path: attempts for path, (_, attempts) in pages().items()} == {
        path: len(seen) for path, seen in answers.items()
    }
    assert row(output, "retried") == str(kinds["failing"] + kinds["hanging"])


def test_it_serves_a_folder_itself_and_tells_what_its_server_saw(tree, crawl):
    output = finish(crawl("--root", str(tree), "--latency", "5-20"))

    assert output.startswith("Checking http://127.0.0.1:")
    assert int(row(output, "pages")) > FOLDERS * FILES
    assert 1 < int(row(output, "most in flight at once")) <= FOLDERS * FILES


def test_a_killed_worker_loses_no_page(serve, crawl, pages, broker):
    site = serve("100-300")
    process = crawl(site.url, "--concurrency", "20", *broker)
    wait_until(lambda: len(site.answers()) > 60, process)

    workers(process)[0].kill()
    output = finish(process)

    assert_complete(site, pages, output)
    assert fetched_too_often(site.answers(), cut=1) == {}


def test_a_stopped_crawl_goes_on_where_it_was(serve, crawl, pages, broker):
    site = serve("100-300")
    process = crawl(site.url, "--concurrency", "20", *broker)
    wait_until(lambda: len(site.answers()) > 60, process)

    process.send_signal(signal.SIGTERM)
    told, _ = process.communicate(timeout=LIMIT_S)
    before = len(site.answers())
    output = finish(crawl(site.url, *broker))

    assert process.returncode == 128 + signal.SIGTERM, told
    assert "Go on with" in told
    assert before < len(site.files())
    assert_complete(site, pages, output)
    assert fetched_too_often(site.answers(), cut=1) == {}


def test_a_crawl_of_its_own_folder_goes_on_under_the_same_address(tree, crawl, pages):
    process = crawl("--root", str(tree), "--latency", "100-300", "--concurrency", "20")
    process.stdout.readline()  # it has begun
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=LIMIT_S)

    finish(crawl())

    assert {state for state, _ in pages().values()} <= {"checked", "broken", "timed out"}
    assert len(pages()) > FOLDERS * FILES


def test_processes_are_gone_when_a_crawl_has_ended(serve, crawl):
    site = serve("5-20")
    process = crawl(site.url)
    wait_until(lambda: len(workers(process)) > 1, process)
    below = psutil.Process(process.pid).children(recursive=True)

    finish(process)

    assert [each for each in below if each.is_running() and each.status() != psutil.STATUS_ZOMBIE] == []


def test_a_crawl_runs_on_rabbitmq_by_its_url_and_survives_a_killed_worker(serve, crawl, pages):
    site = serve("5-20")
    with shared_server().vhost() as vhost:
        process = crawl(site.url, "--broker", vhost.url)
        wait_until(lambda: len(site.answers()) > 30, process)
        workers(process)[0].kill()

        output = finish(process)

    assert_complete(site, pages, output)
    assert fetched_too_often(site.answers(), cut=1) == {}
