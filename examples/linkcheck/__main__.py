"""Runs a whole link check: the site, the queue, the workers, the report.

Starts two processes: a server for a tree of files (unless it is given the URL of a site)
and greenq-worker. It sends the first job and from then on only reads the record. All that
lasts is in one folder, so a crawl that was stopped goes on when it is given that folder.

Exits with 0 once every page is checked (or as many as were asked for), 1 if that cannot be
any more, 2 for wrong arguments, 128 plus the signal's number if a signal stopped it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote, urlsplit
from urllib.request import urlopen

from greenq.errors import ConnectionError
from greenq.log_lines import without_password

from .record import Record, Tally
from .report import Progress, table
from .server import COUNTS_PATH, latency_range

ROOT = Path(__file__).resolve().parents[2]
POLL_S = 0.1
#: Seconds for which nothing may happen while pages are open and the queue is empty.
STILL_S = 3
#: How many of the broken links are named.
SHOWN = 5
#: Greenq's workers stop within their own time, which this leaves them.
STOP_TIMEOUT_S = 45


class CrawlFailed(Exception):
    """The crawl cannot be finished; says why."""


class Stopped(Exception):
    """A signal asked for the end."""


class StopSignals:
    """The signals that ask for the end. Only noted here: no step of a start is cut in two."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, lambda signum, _frame: self.seen.append(signum))


stop_signals = StopSignals()


def main() -> int:
    options = parse_arguments()
    folder = Path(options.dir or tempfile.mkdtemp(prefix="linkcheck-")).resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"The folder {folder} cannot be made: {error.strerror}. Give another --dir.", file=sys.stderr)
        return 2
    try:
        with ExitStack() as cleanup:
            check_links(options, folder, cleanup)
    except Stopped:
        signum = stop_signals.seen[0]
        print(f"Stopped by {signal.Signals(signum).name}. Go on with: {again(options, folder)}")
        return 128 + signum
    except CrawlFailed as error:
        print(f"{error}\nThe workers' log is {folder / 'worker.log'}.", file=sys.stderr)
        return 1
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="examples/linkcheck/run",
        description="Check all links of a web site; by default of one that is made of Python's standard library.",
    )
    parser.add_argument("url", nargs="?", help="where to begin. Pages of the same host are checked, and no others")
    parser.add_argument("--dir", help="the folder of queue and record; one of a stopped crawl goes on with it")
    parser.add_argument("--pages", type=int, metavar="N", help="stop once this many pages are checked")
    parser.add_argument("--processes", type=positive, default=2, metavar="N", help="worker processes (default: 2)")
    parser.add_argument("--concurrency", type=positive, default=1000, metavar="N", help="jobs at once in each (1000)")
    parser.add_argument("--time-limit", type=int, default=3000, metavar="MS", help="for a page and its links (3000)")
    parser.add_argument(
        "--broker", metavar="URL", help="the queue, as in redis://127.0.0.1 (default: an SQLite file in the folder)"
    )
    parser.add_argument("--root", type=Path, help="serve this folder instead of the standard library")
    parser.add_argument("--latency", type=latency_range, default=(50, 200), metavar="MS-MS", help="of a served page")
    options = parser.parse_args()
    if options.root and not options.root.is_dir():
        parser.error(f"--root: {options.root} is not a folder")
    if options.url and (urlsplit(options.url).scheme not in ("http", "https") or not urlsplit(options.url).hostname):
        parser.error(f"{options.url!r} is not the URL of a page: write it as in http://127.0.0.1:8000/")
    return options


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def check_links(options: argparse.Namespace, folder: Path, cleanup: ExitStack) -> None:
    """Run the crawl to its end and print the report."""
    record = Record(folder / "record.db")
    cleanup.callback(record.close)
    start, is_ours = begin(options, record, cleanup)
    environment = queue_environment(options, folder)
    print(f"Checking {start}\nQueue and record are in {folder}", flush=True)
    before = record.tally()
    send_first(record, start, environment, cleanup)
    worker = start_worker(options, folder, environment, cleanup)
    progress = Progress(before)
    try:
        # Longer than any job, with a retry of it in sight.
        still_s = STILL_S + 2 * options.time_limit / 1000
        tally = watch(record, worker, folder / "worker.log", progress, options.pages, still_s)
    finally:
        progress.end()
    print(report(record, tally, progress, counts(start) if is_ours else None, folder, options))
    state, status = record.state_of(start)
    if state in ("broken", "failed"):
        answer = f"it answered {status}" if status else "nothing answers there"
        raise CrawlFailed(f"The first page, {start}, cannot be read: {answer}.")


# -- the site


def begin(options: argparse.Namespace, record: Record, cleanup: ExitStack) -> tuple[str, bool]:
    """Where the crawl begins, and whether it is a site that we serve: now we do."""
    earlier = record.crawl()
    if earlier is None:
        if options.url:
            start, root = urlsplit(options.url)._replace(fragment="").geturl(), None
        else:
            root = str(options.root or sysconfig.get_path("stdlib"))
            start = start_server(root, 0, options, cleanup)
        record.set_crawl(start, root)
    else:
        start, root = earlier
        if options.url and options.url != start:
            raise CrawlFailed(f"The crawl in this folder began at {start}: give another folder for {options.url}.")
        if root is not None:
            start_server(root, urlsplit(start).port or 0, options, cleanup)  # the pages keep their URLs
    return start, root is not None


def start_server(root: str, port: int, options: argparse.Namespace, cleanup: ExitStack) -> str:
    """Serve a folder; return the URL of its first page."""
    latency = "{}-{}".format(*options.latency)
    command = [sys.executable, "-m", "examples.linkcheck.server", "--root", root, "--port", str(port)]
    server = subprocess.Popen(
        [*command, "--latency", latency, "--until-eof"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,  # Ctrl-C is for us, and the site stays up until the jobs have ended
    )
    cleanup.callback(end, server)
    assert server.stdout is not None
    line = server.stdout.readline()
    if not line:
        raise CrawlFailed(f"The server of {root} did not start.")
    return line.split()[-1]


def counts(start: str) -> dict[str, int]:
    """What our server says that it saw."""
    with urlopen(start.rstrip("/") + COUNTS_PATH, timeout=10) as response:
        saw: dict[str, int] = json.load(response)
    return saw


# -- the queue and its workers


def queue_environment(options: argparse.Namespace, folder: Path) -> dict[str, str]:
    """What crawl.py wants to know, here and in the workers."""
    return {
        "GREENQ_BROKER_URL": options.broker or f"sqlite:///{quote(str(folder / 'queue.db'))}",
        # A server may have the jobs of other crawls, with records of their own.
        "LINKCHECK_QUEUE": f"linkcheck-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}",
        "LINKCHECK_RECORD": str(folder / "record.db"),
        "LINKCHECK_TIME_LIMIT_MS": str(options.time_limit),
    }


def send_first(record: Record, start: str, environment: dict[str, str], cleanup: ExitStack) -> None:
    """Send the job for the first page, unless an earlier run did. As for all: send, then record."""
    os.environ.update(environment)
    try:
        from . import crawl  # it looks for its queue when it is imported
    except ValueError as error:
        raise CrawlFailed(str(error)) from error

    cleanup.callback(crawl.broker.close)
    if not record.known([[start]])[0]:
        try:
            record.add([crawl.send([start], found_on=None)])
        except ConnectionError as error:
            raise CrawlFailed(f"The queue cannot be used: {error}.") from error


def start_worker(
    options: argparse.Namespace, folder: Path, environment: dict[str, str], cleanup: ExitStack
) -> subprocess.Popen[bytes]:
    """Start greenq-worker."""
    command = [sys.executable, "-m", "greenq", "--path", str(ROOT), "--worker-shutdown-timeout", "30s"]
    command += ["--processes", str(options.processes), "--concurrency", str(options.concurrency)]
    with (folder / "worker.log").open("ab") as log:
        worker = subprocess.Popen(
            [*command, "examples.linkcheck.crawl"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    cleanup.callback(end, worker)
    return worker


def end(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """Stop a process of ours; kill it if it does not stop in time."""
    deadline = time.monotonic() + STOP_TIMEOUT_S
    process.terminate()
    seen = len(stop_signals.seen)
    while process.poll() is None and time.monotonic() < deadline:
        if len(stop_signals.seen) > seen:  # greenq-worker stops at once if it is told twice
            seen = len(stop_signals.seen)
            process.terminate()
        time.sleep(POLL_S / 10)
    process.kill()  # nothing, if it has ended
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


# -- the crawl


def watch(
    record: Record, worker: subprocess.Popen[bytes], log: Path, progress: Progress, most: int | None, still_s: float
) -> Tally:
    """Show the progress until every page is done, or as many as are wanted."""
    seen: Tally | None = None
    still_since = time.monotonic()
    while True:
        # First the queue: what it has given up is certain only if the record, read later,
        # still has open pages.
        is_queue_empty = queue_is_empty()
        tally = record.tally()
        progress.show(tally)
        if stop_signals.seen:
            print("Stopping: pages under way may end. Once more ends them, too.", file=sys.stderr, flush=True)
            raise Stopped
        if tally.finished == tally.pages or (most is not None and tally.finished >= most):
            return tally
        if worker.poll() is not None:
            raise CrawlFailed(f"greenq-worker ended with code {worker.returncode}:\n{last_words(log)}")
        if tally != seen or not is_queue_empty:
            seen, still_since = tally, time.monotonic()
        # RabbitMQ counts no jobs that run: they have ended after a while, and something has changed.
        if time.monotonic() - still_since > still_s:
            raise CrawlFailed(f"{tally.pages - tally.finished} pages are not done, and no job is left for them.")
        time.sleep(POLL_S)


def last_words(log: Path) -> str:
    """The end of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-3:])


def queue_is_empty() -> bool:
    """Whether no job waits, runs or is delayed; on RabbitMQ it may be that some run."""
    from . import crawl

    return not any(crawl.broker.get_queue_message_counts(crawl.QUEUE)[:2])


def report(
    record: Record,
    tally: Tally,
    progress: Progress,
    saw: dict[str, int] | None,
    folder: Path,
    options: argparse.Namespace,
) -> str:
    mean_rate = progress.mean_rate(tally)
    rows = {
        "pages": f"{tally.finished:,}",
        "links": f"{tally.links:,}",
        "broken links": f"{tally.broken:,}",
        "retried": f"{tally.retried:,} pages, {tally.retries:,} times",
        "timed out": f"{tally.timed_out:,}",
        "failed": f"{tally.failed:,}",
        "jobs a second": f"{mean_rate:,.0f} (at best {max(progress.best_rate, mean_rate):,.0f})",
        "most in flight at once": f"{saw['most_in_flight']:,} (the server's own count)" if saw else "",
        "duration": f"{progress.elapsed_s:.1f} s",
        "queue": without_password(options.broker or str(folder / "queue.db")),
    }
    text = "\n" + table({name: value for name, value in rows.items() if value}) + "\n"
    broken = record.broken_links(SHOWN)
    if broken:
        text += "\n" + "\n".join(f"  {status}  {url}, linked from {page}" for url, page, status in broken) + "\n"
        if tally.broken > len(broken):
            text += f"  and {tally.broken - len(broken):,} more\n"
    return text


def again(options: argparse.Namespace, folder: Path) -> str:
    """The command that goes on with this crawl."""
    broker = f" --broker {without_password(options.broker)}" if options.broker else ""
    return f"examples/linkcheck/run --dir {folder}{broker}"


if __name__ == "__main__":
    sys.exit(main())
