"""Makes docs/pictures/top.svg of what `greenq top` really shows: python docs/picture_of_top.py

It starts a server that accepts connections and never answers, a worker with a thousand jobs that wait for it and a few
others, and `greenq top` on a terminal of its own; what stands on that becomes the picture, letter by letter. Each run
shows other ids and ages, so a test asks only whether the picture is one that this script makes, of columns that
there are.
"""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import escape

PICTURE = Path(__file__).parent / "pictures" / "top.svg"
ROOT = Path(__file__).resolve().parents[1]

COLUMNS, LINES = 104, 15
PROMPT = "$ greenq top"

#: Of the terminal on the picture, which is dark on a light page, too.
BACKGROUND, EDGE, TEXT, DIM, HEAD = "#11161d", "#3d4650", "#d7dde4", "#8b96a3", "#7ee2a8"
WIDTH_OF_LETTER, HEIGHT_OF_LINE, MARGIN, BAR = 8.4, 19, 18, 30
FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"

APPLICATION = """\
import time
import urllib.request

import greenq
from greenq.brokers.sqlite import SqliteBroker

broker = SqliteBroker("shop.db")
greenq.set_broker(broker)


@greenq.actor(queue_name="crawl", time_limit=30_000)
def fetch(url):
    with urllib.request.urlopen(url) as answer:
        return len(answer.read())


@greenq.actor(queue_name="mail", time_limit=60_000)
def mail(customer):
    with urllib.request.urlopen(f"{MAIL}/{customer}") as answer:
        return answer.status


@greenq.actor(queue_name="images", time_limit=120_000)
def resize(image, steps):
    for step in range(steps):
        greenq.progress(step, total=steps)
        end = time.perf_counter() + 0.004
        while time.perf_counter() < end:
            pass
        time.sleep(0.012)  # so that it has a quarter of a CPU, as the picture shows


@greenq.actor(queue_name="nightly", time_limit=600_000)
def import_all(lines):
    for number in range(lines):
        greenq.progress(number, total=lines)
        store(number)


def store(line):
    time.sleep(0.02)  # it stands for a database


MAIL = ""


STEPS = [
    lambda url: import_all.send(1200),
    lambda url: resize.send("shoes.png", 1000),
    lambda url: mail.send_many([("ann",), ("ben",)]),
    lambda url: resize.send("hats.png", 800),
    lambda url: fetch.send_many([(f"{url}/product/{number}",) for number in range(995)]),
]
"""


def main() -> None:
    lines = shown_by_top()
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(svg_of(lines))
    print("\n".join(lines))


# -- what it shows


def shown_by_top() -> list[str]:
    """The screen of `greenq top` over a worker that has a thousand jobs."""
    with ExitStack() as ended:
        folder = Path(ended.enter_context(tempfile.TemporaryDirectory()))
        silent = ended.enter_context(socket.create_server(("127.0.0.1", 0), backlog=4096))
        (folder / "shop").mkdir()
        (folder / "shop" / "__init__.py").touch()
        (folder / "shop" / "tasks.py").write_text(
            APPLICATION.replace('MAIL = ""', f'MAIL = "http://127.0.0.1:{silent.getsockname()[1]}"')
        )
        control = str(folder / "control.sock")
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}

        def start(*command: str) -> subprocess.Popen[bytes]:
            return subprocess.Popen([sys.executable, *command], cwd=folder, env=environment)

        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        worker = start(
            *("-m", "greenq", "shop.tasks:broker", "-p", "1", "-c", "1000"),
            *("--control", control, "--worker-shutdown-timeout", "1s", "--log-file", str(folder / "log")),
        )
        ended.callback(worker.wait, 60)
        ended.callback(worker.send_signal, signal.SIGTERM)
        # In between, so that the jobs in the picture are of different ages.
        sending = f"import time, shop.tasks; [(step({address!r}), time.sleep(1.7)) for step in shop.tasks.STEPS]"
        assert start("-c", sending).wait(60) == 0
        return _on_a_terminal([sys.executable, str(ROOT / "bin/greenq"), "top", "--control", control], environment)


def _on_a_terminal(command: Sequence[str], environment: dict[str, str]) -> list[str]:
    """The lines on a terminal some seconds after all jobs have begun."""
    outside, inside = pty.openpty()
    size = {"COLUMNS": str(COLUMNS), "LINES": str(LINES)}
    program = subprocess.Popen(command, env={**environment, **size}, stdin=inside, stdout=inside)
    os.close(inside)
    text, ends_at, is_full_at = "", time.monotonic() + 60, 0.0
    try:
        while time.monotonic() < ends_at:
            text += os.read(outside, 65536).decode()
            screens = text.split("\x1b[H")
            # The last but one is whole.
            if len(screens) > 2 and "1000 jobs in flight" in screens[-2]:
                is_full_at = is_full_at or time.monotonic()
                if time.monotonic() > is_full_at + 2:
                    plain = re.sub(r"\x1b\[[?\d]*[A-Za-z]", "", screens[-2])
                    return [line.rstrip() for line in re.split(r"\r*\n", plain)]
    finally:
        os.write(outside, b"q")
        program.wait(10)
        os.close(outside)
    raise TimeoutError(f"greenq top did not show a thousand jobs: {text[-2000:]}")


# -- how it looks


def svg_of(lines: Sequence[str]) -> str:
    """The picture of a terminal with these lines."""
    while lines and not lines[-1]:
        lines = lines[:-1]
    shown = [PROMPT, *lines]
    width = round(COLUMNS * WIDTH_OF_LETTER + 2 * MARGIN)
    height = BAR + len(shown) * HEIGHT_OF_LINE + MARGIN
    rows = []
    for number, line in enumerate(shown):
        if line:
            y = BAR + (number + 1) * HEIGHT_OF_LINE - 4
            # Its length is fixed, so that columns stand below each other in any font.
            length = f"{len(line) * WIDTH_OF_LETTER:.1f}"
            rows.append(
                f'<text class="{_kind(number, line)}" x="{MARGIN}" y="{y}" textLength="{length}">{escape(line)}</text>'
            )
    return textwrap.dedent(
        f"""\
        <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">
        <title>greenq top: a thousand jobs in one worker, each with the line where it waits</title>
        <style>
        text {{ font: 14px {FONT}; white-space: pre; fill: {TEXT}; }}
        .prompt {{ fill: {HEAD}; }} .count {{ font-weight: bold; }} .head {{ fill: {DIM}; }}
        </style>
        <rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="9" fill="{BACKGROUND}" stroke="{EDGE}"/>
        <circle cx="20" cy="18" r="5.5" fill="{EDGE}"/><circle cx="38" cy="18" r="5.5" fill="{EDGE}"/>
        <circle cx="56" cy="18" r="5.5" fill="{EDGE}"/>
        ROWS
        </svg>
        """
    ).replace("ROWS", "\n".join(rows))


def _kind(number: int, line: str) -> str:
    if number == 0:
        return "prompt"
    if number == 1:
        return "count"
    return "head" if line.startswith("MESSAGE ") else "row"


def lines_of(svg: str) -> list[str]:
    """The lines on a picture, the prompt not among them."""
    lines: dict[int, str] = {}
    for each in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text"):
        lines[(int(each.get("y", "0")) + 4 - BAR) // HEIGHT_OF_LINE - 1] = each.text or ""
    return [lines.get(number, "") for number in range(1, max(lines) + 1)]


if __name__ == "__main__":
    main()
