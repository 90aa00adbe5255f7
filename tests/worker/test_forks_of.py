"""Which functions of a broker's middleware run in processes of their own."""

from __future__ import annotations

import subprocess
import sys

from greenq.worker.fork import forks_of
from tests.support.command import ROOT


class OfNoClassOfOurs:
    """Has the hooks that it needs, and no more."""

    def after_process_boot(self, broker):
        pass


def test_a_middleware_that_is_derived_from_nothing_has_no_forks(broker):
    broker.middleware.append(OfNoClassOfOurs())

    assert forks_of(broker) == []


def test_naming_the_process_that_serves_metrics_imports_no_server():
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from greenq.middleware.prometheus import Prometheus; Prometheus().forks\n"
        "print('http.server' in sys.modules)\n"
    )

    arguments = [sys.executable, "-c", program, str(ROOT)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout == "False\n"
