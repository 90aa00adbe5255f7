"""A picture of a load over time: what was sent and done each second, and how long a job took.

A job's time is shown at the second at which it was sent, so a stall is seen in what all those had to
wait who came meanwhile, and not only where it ends.
"""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")  # no display is needed

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from load_ledger import Account, Job
from matplotlib import pyplot, ticker
from runs import percentile

INK, PALE, GRID = "#1f2933", "#66727f", "#e4e7eb"
SENT, DONE, EVENT, SLEEPERS = "#9fb3c8", "#0b7285", "#d9480f", "#9c36b5"
PERCENTILES = {50: "#74c0fc", 95: "#1c7ed6", 99: "#0b3d91"}
INCHES, DOTS_PER_INCH = (11, 6.8), 130
STYLE = {
    "font.size": 10,
    "axes.titlepad": 8,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": PALE,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "xtick.color": PALE,
    "ytick.color": PALE,
    "legend.frameon": False,
}


def draw(account: Account, path: Path, title: str, subtitle: str, *, seconds: float, sleep_ms: float) -> None:
    """Write the picture, as PNG.

    Parameters:
      account(Account): What happened.
      path(Path): The file.
      title(str): What it was.
      subtitle(str): What came of it.
      seconds(float): How long there were users.
      sleep_ms(float): How long sleepers sleep: their line shows what they took beyond it.
    """
    bin_s = 1.0 if seconds >= 20 else 0.25
    jobs = list(account.jobs.values())
    sent = [job.sent_at - account.began_at for job in jobs]
    done = [at + job.done_ms / 1000 for at, job in zip(sent, jobs, strict=True) if job.done_ms is not None]
    ends = max([seconds, *done])

    with pyplot.rc_context(STYLE):
        figure, (upper, lower) = pyplot.subplots(2, 1, sharex=True, figsize=INCHES, height_ratios=(1, 1.2))
        times = [number * bin_s for number in range(int(ends / bin_s) + 2)]
        upper.fill_between(
            times, _rates(sent, len(times), bin_s), step="post", color=SENT, alpha=0.6, lw=0, label="enqueued"
        )
        upper.step(times, _rates(done, len(times), bin_s), where="post", color=DONE, lw=1.6, label="done")
        upper.set_ylim(bottom=0)
        upper.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))

        # After the last second there are a few more until locust looks at the time again.
        jobs = [job for job, at in zip(jobs, sent, strict=True) if at < seconds]
        work = _times(account, jobs, "work", bin_s)
        for percent, color in PERCENTILES.items():
            _line(lower, work, bin_s, percent, color=color, label=f"p{percent}")
        ended = _times(account, jobs, "work", bin_s, until="ran_ms")
        _line(lower, ended, bin_s, 99, color=PALE, ls=":", label="p99 until the job ended")
        sleepers = _times(account, jobs, "sleep", bin_s, beyond_ms=sleep_ms)
        if sleepers:
            _line(lower, sleepers, bin_s, 99, color=SLEEPERS, ls="--", label="p99 of sleepers, beyond their sleep")
        lower.set_yscale("log")
        lower.yaxis.set_major_formatter(ticker.FuncFormatter(_in_words))
        lower.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        lower.yaxis.set_minor_locator(ticker.NullLocator())
        lower.set_xlabel("seconds since the first user came; what a job took is shown where it was sent")
        lower.set_ylim(_floor(lower.get_ylim()[0]))
        lower.set_xlim(0, ends if ends > seconds + 2 * bin_s else seconds)

        for axes, what in ((upper, "Jobs a second"), (lower, "From send to result")):
            axes.set_title(what, loc="left", fontsize=11, fontweight="bold", color=INK)
            axes.tick_params(length=0, pad=6)
            axes.legend(loc="lower right", bbox_to_anchor=(1.008, 0.97), ncols=5, columnspacing=1.4, handlelength=1.6)
            for event in account.events:
                begin, end = event.began_at - account.began_at, event.ended_at - account.began_at
                if end > begin:
                    axes.axvspan(begin, end, color=EVENT, alpha=0.08, lw=0)
                else:
                    axes.axvline(begin, color=EVENT, lw=1.2, ls=(0, (4, 2)))
        for event in account.events:
            upper.annotate(
                event.text,
                (event.began_at - account.began_at, 0.04),
                xycoords=("data", "axes fraction"),
                xytext=(6, 0),
                textcoords="offset points",
                color=EVENT,
            )
        figure.text(0.058, 0.953, title, fontsize=15, fontweight="bold")
        figure.text(0.058, 0.916, subtitle, color=PALE)
        figure.subplots_adjust(left=0.058, right=0.982, top=0.85, bottom=0.075, hspace=0.2)
        figure.savefig(path, dpi=DOTS_PER_INCH)
        pyplot.close(figure)


def _rates(times: Sequence[float], bins: int, bin_s: float) -> list[float]:
    rates = [0.0] * bins
    for each in times:
        rates[int(each / bin_s)] += 1 / bin_s
    return rates


def _times(
    account: Account, jobs: Sequence[Job], actor: str, bin_s: float, *, until: str = "done_ms", beyond_ms: float = 0
) -> dict[int, list[float]]:
    """What jobs of an actor took, by the number of the bin in which they were sent."""
    times: defaultdict[int, list[float]] = defaultdict(list)
    for job in jobs:
        took_ms = getattr(job, until)
        if job.actor == actor and took_ms is not None:
            times[int((job.sent_at - account.began_at) / bin_s)].append(took_ms - beyond_ms)
    return times


def _line(axes: pyplot.Axes, times: dict[int, list[float]], bin_s: float, percent: int, **style: str) -> None:
    bins = sorted(times)
    middles = [(number + 0.5) * bin_s for number in bins]
    axes.plot(middles, [percentile(times[number], percent) for number in bins], lw=1.6, **style)


def _floor(value: float) -> float:
    """The next one of 1, 2, 5, 10, ... below."""
    power = 10.0 ** math.floor(math.log10(value))
    return max(step * power for step in (1, 2, 5) if step * power <= value)


def _in_words(milliseconds: float, _: object = None) -> str:
    return f"{milliseconds / 1000:g} s" if milliseconds >= 1000 else f"{milliseconds:g} ms"
