"""greenq beside other queues, and a bare loop, on Redis.

    python beside.py [--runs 3] [--quick] [--peers NAMES] [--only FIGURE] [--concurrency N]
        [--write FILE] [--json FILE] [--renew]

Makes an environment for each queue, in its newest release; then measures all figures of all queues, several
times, each on a Redis server of its own that is empty at first. Prints the tables that docs/benchmarks.md
shows, and writes them there when told so. What cannot be had is in the tables with the reason, what failed
in some runs with their number. All that was started ends with it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from figures import MEASURE_OF, MEASURES, TABLES, Column
from figures.delayed import LATE_S
from peers import ENVIRONMENTS, PEERS, CannotBeHad, Installed, Peer
from running import QUICK, Sizes
from runs import Figures, machine, shown

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
OURS = "greenq"


class Outcome:
    """What was found of all queues.

    Parameters:
      peers(list[Peer]): In the order of the rows.
    """

    def __init__(self, peers: Sequence[Peer]) -> None:
        self.peers = peers
        self.versions: dict[str, str] = {}
        #: By queue, what each run measured.
        self.runs: dict[str, list[Figures]] = {peer.name: [] for peer in peers}
        #: By queue and measure, why it was not measured.
        self.failures: dict[tuple[str, str], str] = {}

    def tables(self) -> str:
        """All tables, in Markdown."""
        return "\n\n".join([*(self._table(table.title, table.columns) for table in TABLES), self._settings()])

    def _table(self, title: str, columns: Sequence[Column]) -> str:
        lines = [
            f"### {title}",
            "",
            "| | " + " | ".join(column.title for column in columns) + " |",
            "|---|" + "---|" * len(columns),
        ]
        for peer in self.peers:
            cells = [self._cell(peer, column) for column in columns]
            lines.append(f"| {peer.title} | " + " | ".join(cells) + " |")
        return "\n".join(lines)

    def _cell(self, peer: Peer, column: Column) -> str:
        figure, measure = column.figure, MEASURE_OF.get(column.figure, column.figure)
        values = [run[figure] for run in self.runs[peer.name] if figure in run]
        if not values:
            return self.failures.get((peer.name, measure)) or peer.without.get(measure, "not measured")
        if math.isinf(max(values)):
            return f"not all within {LATE_S} s"
        # What was seen in one run of three is no median of three.
        failed = len(self.runs[peer.name]) - len(values)
        less = f", failed in {failed} of {failed + len(values)} runs" if failed else ""
        cell = shown(statistics.median(values))
        if peer.name == OURS or not column.has_ratios:
            return cell + (" · 1.0" if column.has_ratios else "") + _spread(values) + less
        # Of the same run: what the machine had to do meanwhile was the same.
        ratios = [
            run[figure] / ours[figure]
            for run, ours in zip(self.runs[peer.name], self.runs.get(OURS, []), strict=False)
            if figure in run and ours.get(figure, 0) > 0
        ]
        return (f"{cell} · {shown(statistics.median(ratios))}{_spread(ratios)}" if ratios else cell) + less

    def _settings(self) -> str:
        lines = ["### What was run", "", "| | versions | delivery | configured |", "|---|---|---|---|"]
        for peer in self.peers:
            versions = self.versions.get(peer.name, "")
            lines.append(f"| {peer.title} | {versions} | {peer.delivery} | {peer.settings} |")
        return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    return f" ({shown(min(values))} to {shown(max(values))})" if len(values) > 1 else ""


def measure_all(peers: Sequence[Peer], names: Sequence[str], runs: int, sizes: Sizes, renew: bool) -> Outcome:
    """Measure these figures of these queues in turn, several times."""
    outcome = Outcome(peers)
    installed = _install(peers, outcome, renew, names)
    for number in range(1, runs + 1):
        for peer in peers:
            outcome.runs[peer.name].append({})
        for name in names:
            for peer in peers:
                if peer.name in installed and name not in peer.without:
                    print(f"run {number} of {runs}: {name}, {peer.name}", end="", file=sys.stderr, flush=True)
                    _measure(peer, installed[peer.name], name, sizes, outcome)
    return outcome


def _install(peers: Sequence[Peer], outcome: Outcome, renew: bool, names: Sequence[str]) -> dict[str, Installed]:
    installed = {}
    for peer in peers:
        try:
            installed[peer.name] = peer.install(renew)
            outcome.versions[peer.name] = installed[peer.name].versions
        except CannotBeHad as missing:
            print(f"without {peer.name}: {missing}", file=sys.stderr)
            outcome.failures.update({(peer.name, name): str(missing) for name in names})
    return installed


def _measure(peer: Peer, installed: Installed, name: str, sizes: Sizes, outcome: Outcome) -> None:
    started = time.monotonic()
    try:
        outcome.runs[peer.name][-1].update(MEASURES[name](peer, installed, sizes))
        print(f": {time.monotonic() - started:.1f} s", file=sys.stderr)
    except (SystemExit, Exception) as failure:
        # One queue that fails at one figure, in whatever way, is no reason to have none of the others.
        print(f"\nFAILED: {type(failure).__name__}: {failure}", file=sys.stderr)
        outcome.failures[peer.name, name] = "failed"


def write(file: Path, text: str) -> None:
    """Put the text between the two marks of a page, in place of what is there."""
    page = file.read_text()
    before, begins, rest = page.partition(BEGIN)
    _, ends, after = rest.partition(END)
    if not begins or not ends:
        raise SystemExit(f"{file} has no lines {BEGIN} and {END}.")
    file.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def heading(runs: int, quick: bool) -> str:
    """When and where these figures were taken."""
    server = subprocess.run(["redis-server", "--version"], stdout=subprocess.PIPE, text=True, check=True)
    redis_version = next(part for part in server.stdout.split() if part.startswith("v="))[2:]
    day = datetime.date.today().strftime("%-d %B %Y")
    said = f"{day}; {machine()}; Redis {redis_version}; {runs} {'run' if runs == 1 else 'runs'}."
    if quick:
        said += "\n\n**Of a quick run, on a machine that did much else: to be replaced, and of no meaning.**"
    return said


def main() -> None:
    """Measure; print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, help="how often to measure everything; default: 3, or 1 with --quick")
    parser.add_argument("--quick", action="store_true", help="much less of everything, to try the benchmark itself")
    parser.add_argument("--peers", help=f"these alone, of {','.join(peer.name for peer in PEERS)}")
    parser.add_argument("--only", choices=MEASURES, help="measure nothing but this")
    parser.add_argument("--concurrency", type=int, help="of a worker; default: 1000, or 500 with --quick")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables into this page, between its marks")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures of all runs there")
    parser.add_argument("--renew", action="store_true", help="install all queues anew, in their newest releases")
    args = parser.parse_args()
    # Ended by TERM as by ctrl-C: what was started ends too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Compiled once for all processes of all queues, whatever the shell says.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ.setdefault("PYTHONPYCACHEPREFIX", str(ENVIRONMENTS / "compiled"))
    chosen = args.peers.split(",") if args.peers else [peer.name for peer in PEERS]
    unknown = set(chosen) - {peer.name for peer in PEERS}
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    runs = args.runs or (1 if args.quick else 3)
    sizes = QUICK if args.quick else Sizes()
    if args.concurrency:
        sizes = sizes._replace(concurrency=args.concurrency)
    outcome = measure_all(
        [peer for peer in PEERS if peer.name in chosen],
        [args.only] if args.only else list(MEASURES),
        runs,
        sizes,
        args.renew,
    )
    text = f"{heading(runs, args.quick)}\n\n{outcome.tables()}"
    print(text)
    if args.write:
        write(args.write, text)
    if args.json:
        args.json.write_text(json.dumps({"machine": machine(), "runs": outcome.runs}, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
