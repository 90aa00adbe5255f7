"""A point that several have to reach before anybody goes on."""

from __future__ import annotations

from .backend import RateLimiterBackend


class Barrier:
    """A barrier over all processes and machines.

        barrier = Barrier(backend, "some-barrier", ttl=30_000)
        barrier.create(parties=3)
        barrier.wait(block=False)  # False
        barrier.wait(block=False)  # False
        barrier.wait(block=False)  # True

    Parameters:
      backend(RateLimiterBackend): Where it counts.
      key(str): Of this one barrier and no other: use a UUID.
      ttl(int): Milliseconds after which the barrier is forgotten, from the last arrival. Default:
        15 minutes.
    """

    def __init__(self, backend: RateLimiterBackend, key: str, *, ttl: int = 900_000) -> None:
        assert ttl >= 1, "a ttl is 1 ms or more"
        self.backend = backend
        self.key = key
        self.key_of_end = f"{{{key}}}@end"
        self.ttl = ttl

    def create(self, parties: int) -> bool:
        """Create the barrier. May switch.

        Parameters:
          parties(int): How many have to reach it, 1 or more.

        Returns:
          Whether it was created now; False if it existed.

        Raises:
          AssertionError: parties is less than 1.
          ConnectionError: The backend is away.
        """
        assert parties > 0, "parties is 1 or more"
        return self.backend.add(self.key, parties, self.ttl)

    def wait(self, *, block: bool = True, timeout: int | None = None) -> bool:
        """Say that one more has reached the barrier. May switch.

        Parameters:
          block(bool): Whether to wait for the others. Default: True.
          timeout(int): Milliseconds to wait for them. Default: the barrier's ttl.

        Returns:
          Whether all have reached it: for the last one, for those who waited until then, and for
          everybody who comes after that, or to a barrier that does not exist. False when the time is
          over, and for those who do not wait.

        Raises:
          ConnectionError: The backend is away.
        """
        if self._arrive():
            return True
        return block and self.backend.wait(self.key_of_end, self.ttl if timeout is None else timeout)

    async def async_wait(self, *, block: bool = True, timeout: int | None = None) -> bool:
        """``wait`` for code that runs on an asyncio loop, which nothing blocks meanwhile."""
        import asyncio

        if await asyncio.get_running_loop().run_in_executor(None, self._arrive):
            return True
        return block and await self.backend.async_wait(self.key_of_end, self.ttl if timeout is None else timeout)

    def _arrive(self) -> bool:
        if self.backend.decr(self.key, 1, 1, self.ttl):
            return False
        self.backend.wait_notify(self.key_of_end, self.ttl)
        return True
