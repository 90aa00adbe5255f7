"""What a scrape of the metrics costs the worker: the same jobs with a scrape every 100 ms, and with none.

    python scraping.py [--runs 5] [--only NAME] [--json FILE] [--quick]

A benchmark, not a test: it prints a table and fails at no figure. Both count their metrics, and
take turns (none, scraped, scraped, none), so that a machine that becomes slower meets both.
"""

from __future__ import annotations

import contextlib
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple
from urllib.request import urlopen

from processes import LIMIT_S, bench
from runs import Figures, Row, arguments, measure

EVERY_S = 0.1
NAP_S, NAPPERS = 0.1, 1_000


class Sizes(NamedTuple):
    """How much is done for a figure."""

    noops: int = 200_000
    naps: int = 40_000


QUICK = Sizes(noops=20_000, naps=5_000)

ROWS = [
    Row("noop_none", "no-op jobs, not scraped", "jobs/s"),
    Row("noop_scraped", "no-op jobs, scraped ten times a second", "jobs/s"),
    Row("noop_ratio", "the second, of the first", "%"),
    Row("noop_cpu_none", "worker's CPU a no-op job, not scraped", "µs"),
    Row("noop_cpu_scraped", "worker's CPU a no-op job, scraped", "µs"),
    Row("nap_none", "jobs of 100 ms at 1000, not scraped, of the ideal", "%"),
    Row("nap_scraped", "the same, scraped ten times a second", "%"),
    Row("nap_cpu_none", "worker's CPU a job of 100 ms, not scraped", "µs"),
    Row("nap_cpu_scraped", "worker's CPU a job of 100 ms, scraped", "µs"),
    Row("scrapes", "scrapes beside no-op jobs, each time", ""),
    Row("scrape_p50", "a scrape beside no-op jobs, p50", "ms"),
]


class Scraper:
    """Reads the metrics again and again, as Prometheus does, on a thread of the benchmark's.

    Parameters:
      port(int): Where the command serves them.
    """

    def __init__(self, port: int) -> None:
        self.took_ms: list[float] = []
        self._url = f"http://127.0.0.1:{port}/metrics"
        self._is_over = threading.Event()

    def read(self) -> bytes:
        """The page, once."""
        with urlopen(self._url, timeout=LIMIT_S) as answer:
            page: bytes = answer.read()
        return page

    def read_when_served(self) -> bytes:
        """The page, once it is served."""
        ends = time.monotonic() + LIMIT_S
        while time.monotonic() < ends:
            with contextlib.suppress(OSError):
                return self.read()
            time.sleep(0.02)
        raise SystemExit(f"No metrics were served at {self._url} for {LIMIT_S} s.")

    def _scrape(self) -> None:
        while not self._is_over.wait(EVERY_S):
            began = time.perf_counter()
            with contextlib.suppress(OSError):  # it is served from soon after the first job's start
                self.read()
                self.took_ms.append((time.perf_counter() - began) * 1000)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """It scrapes for as long as the block takes."""
        thread = threading.Thread(target=self._scrape, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            thread.join()


def _stretch(actor_name: str, count: int, *, is_scraped: bool) -> Figures:
    """How long these jobs take, of what the worker says, and what it saw of the scrapes."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with bench(count, environment={"LOADTEST_METRICS": "1", "GREENQ_PROM_PORT": str(port)}) as queue:
        queue.fill(actor_name, count)
        scraper = Scraper(port)
        with scraper.at_work() if is_scraped else contextlib.nullcontext():
            queue.start_worker(NAPPERS)
            measured = queue.read_stretch()
        page = scraper.read_when_served().decode()
    if f'actor_name="{actor_name}"' not in page:
        raise SystemExit(f"The metrics do not have what was measured:\n{page}")
    return {
        "per_s": count / measured["seconds"],
        "cpu_us": measured["cpu_s"] / count * 1e6,
        "scrapes": len(scraper.took_ms),
        "p50": statistics.median(scraper.took_ms or [0]),
    }


def _in_turns(actor_name: str, count: int) -> tuple[Figures, Figures]:
    """The figures without scrapes and with them, each the mean of two."""
    turns = [(scraped, _stretch(actor_name, count, is_scraped=scraped)) for scraped in (False, True, True, False)]
    none, scraped = ([figures for is_it, figures in turns if is_it is kind] for kind in (False, True))
    return _mean(none), _mean(scraped)


def _mean(figures: list[Figures]) -> Figures:
    return {name: statistics.mean(each[name] for each in figures) for name in figures[0]}


# -- what is measured


def noop(sizes: Sizes) -> Figures:
    """No-op jobs."""
    none, scraped = _in_turns("noop", sizes.noops)
    return {
        "noop_none": none["per_s"],
        "noop_scraped": scraped["per_s"],
        "noop_ratio": scraped["per_s"] / none["per_s"] * 100,
        "noop_cpu_none": none["cpu_us"],
        "noop_cpu_scraped": scraped["cpu_us"],
        "scrapes": scraped["scrapes"],
        "scrape_p50": scraped["p50"],
    }


def nap(sizes: Sizes) -> Figures:
    """Jobs that wait for 100 ms, a thousand at once."""
    none, scraped = _in_turns("nap", sizes.naps)
    ideal_per_s = NAPPERS / NAP_S
    return {
        "nap_none": none["per_s"] / ideal_per_s * 100,
        "nap_scraped": scraped["per_s"] / ideal_per_s * 100,
        "nap_cpu_none": none["cpu_us"],
        "nap_cpu_scraped": scraped["cpu_us"],
    }


MEASUREMENTS: dict[str, Callable[[Sizes], Figures]] = {"noop": noop, "nap": nap}


def main() -> None:
    """Measure; print the table."""
    parser = arguments((__doc__ or "").splitlines()[0], list(MEASUREMENTS))
    parser.add_argument("--quick", action="store_true", help="much less of everything, to try the benchmark itself")
    args = parser.parse_args()
    sizes = QUICK if args.quick else Sizes()
    measure(args, {name: partial(measurement, sizes) for name, measurement in MEASUREMENTS.items()}, ROWS)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
