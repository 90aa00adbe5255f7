"""Which drivers let the other jobs of a worker go on while they wait, and which do not.

    python loadtests/drivers.py [--only NAME ...] [--jobs N] [--here] [--json FILE]

Makes a virtual environment of its own with the newest release of each driver, starts servers that
answer after 0.2 s, and runs twenty jobs at once that wait in one driver, in one worker as
greenq-worker starts it. Where they take as long together as one of them, the driver cooperates.
If the hub stood still for as long as all of them wait, it blocks, and the worker's own warning
(--block-warn) says so; the jobs are run once more then in the lane that is the remedy. Prints the
tables of docs/io-on-greenlets.md. driver_trials.py has the jobs.

With --here it uses what the Python that runs it has installed, and tries what that can.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
VENV = HERE.parent / ".drivers-venv"

#: What is installed: what the trials use, and what greenq itself needs.
PACKAGES = [
    *("gevent>=24.11", "psutil", "redis", "requests", "urllib3", "httpx", "aiohttp", "boto3", "grpcio"),
    *("psycopg[binary]", "psycopg2-binary", "psycogreen", "asyncpg", "pg8000", "PyMySQL", "mysql-connector-python"),
    *("pymongo", "psycopg-pool", "SQLAlchemy", "dnspython", "numpy", "lxml"),
]
#: What needs a compiler and headers: it is left out where these are missing.
COMPILED = {"mysqlclient": "apt-get install libmariadb-dev gcc pkg-config"}

#: Nothing that ends at all takes longer.
LIMIT_S = 30
CONCURRENCY = 250
#: After these a worker is of no use.
ENDLESS = ("does not end", "stops the worker")
#: A machine that does something else may make anything late; nothing makes it early. So the best of some tries counts.
TRIES = 5


def main() -> None:
    """Try the drivers; print the tables."""
    args = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if not args.here and Path(sys.prefix) != VENV:
        run_in_venv()
    outcomes = measure(args.only, args.jobs)
    if args.json:
        args.json.write_text(json.dumps(outcomes, indent=1) + "\n")
    from runs import machine

    print(f"{machine()}, gevent {importlib.metadata.version('gevent')}\n\n{tables(outcomes)}")


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="try only these functions of driver_trials.py")
    parser.add_argument("--jobs", type=int, default=1000, help="run no more than so many at once, which is quicker")
    parser.add_argument("--here", action="store_true", help="install nothing; try what is installed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the outcomes there too")
    return parser.parse_args()


def run_in_venv() -> None:
    """Go on in a virtual environment that has the drivers."""
    python = str(VENV / "bin/python")
    if not Path(python).exists():
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade"]
    subprocess.run([*install, *PACKAGES], check=True)
    for package, needs in COMPILED.items():
        if subprocess.run([*install, package], stdout=subprocess.PIPE, stderr=subprocess.STDOUT).returncode:
            print(f"{package} cannot be built here and is left out. On Debian and Ubuntu: {needs}", file=sys.stderr)
    os.execv(python, [python, *sys.argv])


# -- measuring


def measure(only: list[str] | None, most_jobs: int) -> dict[str, Any]:
    """The outcome of each trial, by the name of its function, with so many jobs at most."""
    from driver_servers import SERVERS, Missing
    from driver_trials import SERVER_VARIABLE, TRIALS

    unknown = [name for name in only or () if name not in TRIALS]
    if unknown:
        raise SystemExit(f"There is no trial {unknown[0]}; there are {', '.join(TRIALS)}.")
    wanted = {name: TRIALS[name] for name in only or TRIALS}
    outcomes: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        addresses: dict[str, str] = {}
        for name in sorted({name for trial in wanted.values() for name in trial.servers}):
            try:
                addresses[SERVER_VARIABLE.format(name.upper())] = stack.enter_context(SERVERS[name]())
            except (Missing, ImportError) as error:
                print(f"{name}: {error}", file=sys.stderr)
        able = {}
        for name, trial in wanted.items():
            has_servers = all(SERVER_VARIABLE.format(server.upper()) in addresses for server in trial.servers)
            if has_servers and is_installed(trial.package):
                able[name] = trial
            else:
                outcomes[name] = {"verdict": "not tried"}
        together = [name for name, trial in able.items() if not trial.is_apart]
        for names in [together, *([name] for name, trial in able.items() if trial.is_apart)]:
            while names:
                outcomes |= measure_in_one_worker(names, addresses, most_jobs)
                names = [name for name in names if name not in outcomes]
    return {name: outcomes[name] for name in wanted}


def measure_in_one_worker(names: list[str], addresses: dict[str, str], most_jobs: int) -> dict[str, Any]:
    """The outcomes of some trials, up to the first that does not end."""
    from driver_trials import TRIALS

    outcomes: dict[str, Any] = {}
    environment = {**addresses, "DRIVERS_TRIALS": ",".join(names), "GREENQ_BLOCK_WARN": "100ms"}
    for name in names:
        environment |= TRIALS[name].environment
    if "DRIVERS_DNS" in addresses:
        environment["GEVENT_RESOLVER_NAMESERVERS"] = addresses["DRIVERS_DNS"].partition(":")[0]
    with worker(environment) as bench:
        for name in names:
            trial = TRIALS[name]
            print(f"{name} ...", file=sys.stderr, end=" ", flush=True)
            jobs = min(trial.jobs, most_jobs)
            outcome = best_of_some(bench, trial.actor, jobs, trial.wait_s)
            if trial.lane and outcome["verdict"] == "blocks":
                outcome["lane"] = best_of_some(bench, f"{trial.actor}_{trial.lane}", jobs, trial.wait_s)
            outcome["version"] = version(trial.package)
            outcome["jobs"] = jobs
            outcomes[name] = outcome
            print({key: value for key, value in outcome.items() if key != "told"}, file=sys.stderr, flush=True)
            if outcome["verdict"] in ENDLESS:
                break
    return outcomes


@contextlib.contextmanager
def worker(environment: dict[str, str]) -> Iterator[Any]:
    """A worker that runs the trials."""
    from processes import bench

    # As many threads as there are jobs, so that a lane of threads is not what they wait for.
    threads = {"GREENQ_LANE_THREADS": "20", "GREENQ_LANE_PROCESSES": "2"}
    with bench(app="driver_jobs", environment={**environment, **threads}) as opened:
        opened.start_idle_worker(CONCURRENCY)
        yield opened


def best_of_some(bench: Any, actor: str, jobs: int, wait_s: float) -> dict[str, Any]:
    """What comes of so many jobs at once, in the best of some tries."""
    from processes import Silent

    outcomes: list[dict[str, Any]] = []
    try:
        run(bench, actor, jobs)  # they import, and connect
        while len(outcomes) < TRIES:
            outcomes.append(at_once(bench, actor, jobs, wait_s))
            # That they went one by one is no matter of how busy the machine is.
            if outcomes[-1]["verdict"] in ("cooperates", "blocks", "1 at a time", "fails"):
                return outcomes[-1]
    except Silent:
        # What blocks for ever is told after 5 s by the supervisor.
        return {"verdict": "stops the worker" if "has kept the CPU for" in bench.log() else "does not end"}
    return min(outcomes, key=lambda outcome: float(outcome["took_s"]))


def run(bench: Any, actor: str, count: int) -> list[dict[str, Any]]:
    """Have so many jobs of an actor run; what each of them tells."""
    bench.fill(actor, count)
    return [bench.read(LIMIT_S) for _ in range(count)]


def at_once(bench: Any, actor: str, jobs: int, wait_s: float) -> dict[str, Any]:
    """Run so many jobs at once."""
    run(bench, "report", 1)
    answers = run(bench, actor, jobs)
    stood_s = run(bench, "report", 1)[0]["stood_s"]
    errors = [answer["error"] for answer in answers if "error" in answer]
    if errors:
        return {"verdict": "fails", "error": errors[0]}
    took_s = max(answer["ended"] for answer in answers) - min(answer["began"] for answer in answers)
    told = re.findall(rf"of actor {actor} kept the CPU for (\d+) ms: at (\S+) in ([\w<>]+)", bench.log())
    return {"verdict": verdict(jobs, wait_s, took_s, stood_s), "took_s": took_s, "stood_s": stood_s, "told": told}


def verdict(jobs: int, wait_s: float, took_s: float, stood_s: float) -> str:
    """What it means that so many jobs took so long, and that the hub stood still for so long."""
    if took_s < 2 * wait_s:
        return "cooperates"
    if stood_s > 0.9 * jobs * wait_s:
        return "blocks"
    return f"{max(1, round(jobs * wait_s / took_s))} at a time"


def is_installed(package: str) -> bool:
    """Whether there is such a package."""
    try:
        version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def version(package: str) -> str:
    """Of a package that is installed; empty for Python's own."""
    return importlib.metadata.version(package) if package else ""


# -- showing


def tables(outcomes: dict[str, Any]) -> str:
    """The outcomes as the page has them."""
    from driver_trials import TRIALS

    groups: dict[str, list[str]] = {}
    for name, outcome in outcomes.items():
        groups.setdefault(TRIALS[name].group, []).append(row(name, outcome))
    head = "| | version | | together | the hub stood still | instead |\n|---|---|---|---|---|---|"
    return "\n\n".join(f"### {group}\n\n{head}\n" + "\n".join(rows) for group, rows in groups.items())


def row(name: str, outcome: dict[str, Any]) -> str:
    """A line of the table."""
    from driver_trials import TRIALS

    trial = TRIALS[name]
    found = outcome["verdict"]
    told = f"**{found}**" if found not in ("cooperates", "not tried") else found
    took = f"{outcome['jobs']} of {trial.wait_s:g} s: {outcome['took_s']:.2f} s" if "took_s" in outcome else ""
    if "error" in outcome:
        took = f"`{outcome['error'].partition(':')[0]}`"
    stood = f"{outcome['stood_s'] * 1000:.0f} ms" if found == "blocks" else ""
    instead = trial.remedy if found != "cooperates" else ""
    if "lane" in outcome and outcome["lane"]["verdict"] != "blocks":
        instead = " or ".join(filter(None, [f'`lane="{trial.lane}"`', instead]))
    released = outcome.get("version") or "Python's"
    return f"| {trial.name} | {released} | {told} | {took} | {stood} | {instead} |"


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
