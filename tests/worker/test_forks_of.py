"""Which functions of a broker's middleware run in processes of their own."""

from __future__ import annotations

from greenq.worker.fork import forks_of


class OfNoClassOfOurs:
    """Has the hooks that it needs, and no more."""

    def after_process_boot(self, broker):
        pass


def test_a_middleware_that_is_derived_from_nothing_has_no_forks(broker):
    broker.middleware.append(OfNoClassOfOurs())

    assert forks_of(broker) == []
