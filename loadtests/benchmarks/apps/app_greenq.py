"""greenq: its jobs for the benchmark, and its producer.

python -m greenq --processes 1 --concurrency N app_greenq:broker
"""

from __future__ import annotations

from collections.abc import Sequence

import work
from producing import Producer, main

import greenq

broker = greenq.get_broker()
actors = {job.__name__: greenq.actor(job) for job in (work.noop, work.nap, work.ping, work.due)}
actors["park"] = greenq.actor(time_limit=2000 * work.PARKED_S)(work.park)


class GreenqProducer(Producer):
    """Sends by greenq."""

    has_bulk = True

    async def send(self, job: str, number: int) -> None:
        actors[job].send(number)

    async def send_bulk(self, job: str, numbers: Sequence[int]) -> None:
        actors[job].send_many([(number,) for number in numbers])

    async def send_bulk_later(self, job: str, numbers: Sequence[int], due_ms: int) -> None:
        actors[job].send_many([(number,) for number in numbers], eta=due_ms)


if __name__ == "__main__":
    main(GreenqProducer())
    broker.close()
