"""Loads greenq with locust's users while nothing, or something, befalls it, and looks whether a job was lost.

    python drive.py [--only SCENARIO] [--seconds 60] [--users 100] [--broker redis|sqlite|rabbitmq] [--out DIRECTORY]

Each scenario (load_scenarios.py) has a broker and workers of its own, on free ports of loopback and in a
temporary folder; they end with it. For each there is a folder with reports: locust's CSV and HTML, every
job, a picture over time, and what workers and locust said. Ends with 1 if a job was lost, if a
result did not come, or if a send or the worker's command failed.
"""
# ruff: noqa: E402 - the other load tests have to be on the path first

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn
from urllib.parse import quote

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent))

for _needed in ("locust", "matplotlib", "redis"):
    if importlib.util.find_spec(_needed) is None:
        raise SystemExit(f"{_needed} is not installed. In greenq's checkout: pip install '.[redis,loadtests]'")

import psutil
from ending import die_with_parent
from load_ledger import LEDGER_VARIABLE, Account, Ledger, lately_at_work, now
from load_picture import draw
from load_scenarios import RATE, SCENARIOS, SECONDS, SLEEP_MS, SLOW, USERS, WORK_MS, Scenario
from rabbitmq_server import rabbitmq_server
from redis_server import redis_server
from runs import machine, percentile
from slow_proxy import SlowProxy, slow_proxy

BROKERS = {"redis": "Redis", "sqlite": "SQLite", "rabbitmq": "RabbitMQ"}
WORKERS, CONCURRENCY = 2, 1000
#: By how much everything to and from a slow broker is later, each way.
SLOW_MS = 5
#: Nothing that is waited for takes longer, beyond the time of a scenario.
LIMIT_S = 120
_SUMMARY = (
    "| scenario | jobs | jobs/s | enqueued p50 | p99 | ran p99 | done p50 | p95 | p99 | longest | done again | lost |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|"
)


class Size(NamedTuple):
    """How much load, and for how long."""

    seconds: float
    users: int
    rate: float
    concurrency: int
    work_ms: float
    slow_ms: float

    @property
    def sleep_ms(self) -> float:
        """How long a sleeper's job takes."""
        return min(SLEEP_MS, self.seconds * 1000 / 3)


class Place(NamedTuple):
    """A broker, and where results are kept: as they are reached by users and workers."""

    broker_url: str
    results_url: str


class Driver:
    """One scenario at work.

    Parameters:
      folder(Path): Empty, and gone afterwards.
      reports(Path): Where to leave what is to be read.
      name(str): The scenario's.
      place(Place): The broker and the results.
      size(Size): How much.
      proxy(SlowProxy): What is between; None where nothing is.
    """

    def __init__(
        self, folder: Path, reports: Path, name: str, place: Place, size: Size, proxy: SlowProxy | None
    ) -> None:
        self.ledger_path = folder / "ledger"
        self._ledger = Ledger(self.ledger_path)
        self._folder, self._reports, self._size, self._proxy = folder, reports, size, proxy
        self._scenario: Scenario = SCENARIOS[name]
        said = {
            "SCENARIO": name,
            "SECONDS": size.seconds,
            "USERS": size.users,
            "RATE": size.rate,
            "WORK_MS": size.work_ms,
            "SLEEP_MS": size.sleep_ms,
            "RESULTS_URL": place.results_url,
        }
        self._environment = {
            # Whatever locust or greenq is told elsewhere is not meant for this.
            **{key: value for key, value in os.environ.items() if not key.startswith(("LOCUST_", "GREENQ_"))},
            **{f"LOADTEST_{key}": str(value) for key, value in said.items()},
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE), os.environ.get("PYTHONPATH", "")]),
            "GREENQ_BROKER_URL": place.broker_url,
            LEDGER_VARIABLE: str(self.ledger_path),
        }

    def run(self) -> list[str]:
        """Let it happen; complaints about the worker's command."""
        options = ["--processes", str(WORKERS), "--concurrency", str(self._size.concurrency)]
        with self._program("worker.log", "greenq", *options, "load_jobs:broker") as workers:
            self._wait(workers, "worker.log", lambda log: log.count("Worker process is ready.") == WORKERS)
            with self._program("locust.log", "locust", *self._locust_options()) as users:
                self._wait(users, "locust.log", lambda _: bool(Account(self.ledger_path).began_at))
                self._befall(users, workers)
                code = _code_of(users, LIMIT_S + self._size.seconds)
                if code != 0:
                    self._give_up(f"locust ended with {code}", "locust.log")
            workers.terminate()
            code = _code_of(workers, LIMIT_S)
        self._ledger.close()
        return [f"greenq-worker ended with {code}: see worker.log"] if code != 0 else []

    def _locust_options(self) -> list[str]:
        # Complaints come from the ledger, so locust's exit code tells of locust alone. Who is at a send
        # when the users go may finish it.
        return [
            *("--locustfile", str(HERE / "locustfile.py"), "--headless", "--only-summary"),
            *("--exit-code-on-error", "0", "--stop-timeout", "60"),
            *("--csv", str(self._reports / "locust"), "--csv-full-history"),
            *("--html", str(self._reports / "locust.html")),
        ]

    @contextlib.contextmanager
    def _program(self, log_name: str, module: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        with open(self._reports / log_name, "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=self._folder,  # where no configuration of locust's or greenq's is
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        try:
            yield process
        finally:
            _kill(process)

    def _wait(self, process: subprocess.Popen[bytes], log_name: str, has_come: Callable[[str], bool]) -> None:
        """Wait until a program has come so far, as is seen from its log, say."""
        ends = now() + LIMIT_S
        while not has_come((self._reports / log_name).read_text(errors="replace")):
            if process.poll() is not None or now() > ends:
                self._give_up("It ended, or did not come to work", log_name)
            time.sleep(0.02)  # another program tells by its log, which nobody can wait for

    def _give_up(self, what: str, log_name: str) -> NoReturn:
        text = (self._reports / log_name).read_text(errors="replace")
        raise SystemExit(f"{what}. {log_name} ends with:\n{text[-4000:]}")

    # -- what befalls

    def _befall(self, users: subprocess.Popen[bytes], workers: subprocess.Popen[bytes]) -> None:
        began_at, seconds = now(), self._size.seconds

        def wait_until(share: float) -> None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                users.wait(max(0.0, began_at + share * seconds - now()))

        if self._scenario.befalls == "slow":
            assert self._proxy is not None
            wait_until(SLOW[0])
            self._ledger.note("befell", now(), f"{self._size.slow_ms:g} ms to the broker, and as much back")
            self._proxy.delay_s = self._size.slow_ms / 1000
            wait_until(SLOW[1])
            self._proxy.delay_s = 0
            self._ledger.note("unbefell", now())
        elif self._scenario.befalls == "reload":
            wait_until(0.5)
            self._ledger.note("befell", now(), "kill -HUP: new workers, the others stop")
            workers.send_signal(signal.SIGHUP)
        elif self._scenario.befalls == "kill":
            wait_until(0.5)
            victim = self._one_at_work(workers)
            self._ledger.note("befell", now(), "kill -9 of one of the two workers")
            victim.kill()

    def _one_at_work(self, workers: subprocess.Popen[bytes]) -> psutil.Process:
        """A worker that has run jobs."""
        found: list[psutil.Process] = []

        def look(_: str) -> bool:
            pids = lately_at_work(self.ledger_path)
            found.extend(each for each in psutil.Process(workers.pid).children() if each.pid in pids)
            return bool(found)

        self._wait(workers, "worker.log", look)
        return found[0]


def _code_of(process: subprocess.Popen[bytes], limit_s: float) -> int | str:
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return f"nothing for {limit_s:.0f} s"


def _kill(process: subprocess.Popen[bytes]) -> None:
    # The command's own children first, because they would be adopted by others once it is gone.
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    process.kill()
    process.wait()


@contextlib.contextmanager
def place(broker: str, folder: Path, has_proxy: bool) -> Iterator[tuple[Place, SlowProxy | None]]:
    """A broker of this kind, and what is between, if that is wanted. Beside RabbitMQ, Redis keeps the results."""
    if broker == "sqlite":
        urls = [f"sqlite:///{quote(str(folder / name))}" for name in ("queue.db", "results.db")]
        yield Place(*urls), None
        return
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(redis_server())
        server = redis if broker == "redis" else stack.enter_context(rabbitmq_server())
        proxy = stack.enter_context(slow_proxy(server.port)) if has_proxy else None
        port = server.port if proxy is None else proxy.port
        broker_url, results_url = (url.replace(f":{server.port}", f":{port}") for url in (server.url, redis.url))
        yield Place(broker_url, results_url), proxy


def drive(name: str, broker: str, size: Size, reports: Path) -> list[str]:
    """Run a scenario and leave its reports; what is wrong."""
    if reports.exists():
        shutil.rmtree(reports)
    reports.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="greenq-load-") as folder:
        is_slow = SCENARIOS[name].befalls == "slow"
        with place(broker, Path(folder), is_slow) as (where, proxy):
            print(f"{name}: broker {where.broker_url}", file=sys.stderr, flush=True)
            driver = Driver(Path(folder), reports, name, where, size, proxy)
            complaints = driver.run()
        account = Account(driver.ledger_path)
    complaints = account.complaints() + complaints
    write_jobs(account, reports / "jobs.csv")
    print(summary(name, account, size), flush=True)
    draw(
        account,
        reports / "load.png",
        SCENARIOS[name].title,
        f"{in_words(account)}; {BROKERS[broker]}, {WORKERS} workers; {machine()}",
        seconds=size.seconds,
        sleep_ms=size.sleep_ms,
    )
    return [f"{name}: {each}" for each in complaints]


def write_jobs(account: Account, path: Path) -> None:
    """A line for each job, in the order in which they were sent."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["message_id", "actor", "sent_after_s", "enqueued_ms", "ran_ms", "done_ms", "runs"])
        for key, job in sorted(account.jobs.items(), key=lambda each: each[1].sent_at):
            times = ["" if each is None else f"{each:.3f}" for each in (job.enqueued_ms, job.ran_ms, job.done_ms)]
            writer.writerow([key, job.actor, f"{job.sent_at - account.began_at:.3f}", *times, job.runs])


def in_words(account: Account) -> str:
    """What came of all jobs."""
    lost, more = len(account.lost()), account.done_again()
    said = [f"{len(account.jobs):,} jobs", f"{lost:,} lost" if lost else "none lost"]
    return ", ".join([*said, f"{more:,} done again"] if more else said)


def summary(name: str, account: Account, size: Size) -> str:
    """One line of the table. Times are of short jobs alone."""
    jobs = [job for job in account.jobs.values() if job.actor == "work"]
    enqueued = [job.enqueued_ms for job in jobs] or [0.0]
    ran = [job.ran_ms for job in jobs if job.ran_ms is not None] or [0.0]
    done = [job.done_ms for job in jobs if job.done_ms is not None] or [0.0]
    figures = [(enqueued, 50), (enqueued, 99), (ran, 99), (done, 50), (done, 95), (done, 99), (done, 100)]
    shown = " | ".join(f"{percentile(times, percent):,.1f} ms" for times, percent in figures)
    total = len(account.jobs)
    lost = len(account.lost())
    return f"| {name} | {total:,} | {total / size.seconds:,.0f} | {shown} | {account.done_again()} | {lost} |"


def main() -> None:
    """Load; exit with 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=list(SCENARIOS), help="this scenario; default: all, one after the other")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for how long each; default: %(default)s")
    parser.add_argument("--users", type=int, default=USERS, help="in bursts twice as many; default: %(default)s")
    parser.add_argument("--rate", type=float, default=RATE, help="jobs a second of each user; default: %(default)s")
    parser.add_argument("--work-ms", type=float, default=WORK_MS, help="how long a job waits; default: %(default)s")
    parser.add_argument("--slow-ms", type=float, default=SLOW_MS, help="to a slow broker; default: %(default)s")
    parser.add_argument("--concurrency", type=int, default=CONCURRENCY, help="of each worker; default: %(default)s")
    parser.add_argument("--broker", choices=list(BROKERS), default="redis", help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("load-reports"), help="for reports; default: %(default)s")
    args = parser.parse_args()
    names = [args.only] if args.only else list(SCENARIOS)
    if args.broker == "sqlite":
        if args.only == "slow-broker":
            parser.error("--broker sqlite is a file, with no way to it that could be slow")
        names = [name for name in names if name != "slow-broker"]
    # Ended by TERM as by ctrl-C: what was started ends too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    size = Size(args.seconds, args.users, args.rate, args.concurrency, args.work_ms, args.slow_ms)
    print(f"{machine()}; {BROKERS[args.broker]}, {WORKERS} workers\n\n{_SUMMARY}", flush=True)
    complaints: list[str] = []
    for name in names:
        complaints += drive(name, args.broker, size, args.out.resolve() / name)
    print("\n" + ("\n".join(complaints) or "No job was lost."))
    raise SystemExit(bool(complaints))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
