"""What a limiter asks of the place where it counts."""

from __future__ import annotations

from collections.abc import Callable

from ..stores.values import ValueStore, await_for, wait_for


class RateLimiterBackend:
    """Base class of rate limiter backends.

    Each change is one step: two callers never both take the last slot. A change that is
    refused leaves nothing behind. All methods may be called from any thread, greenlet or
    process; they may switch, and raise ConnectionError if the server or file is away.
    """

    def add(self, key: str, value: int, ttl: int) -> bool:
        """Set a key that does not exist.

        Parameters:
          key(str): The key.
          value(int): Its value.
          ttl(int): Milliseconds after which it is gone.

        Returns:
          Whether it was set; False if it existed.
        """
        raise NotImplementedError

    def incr(self, key: str, amount: int, maximum: int, ttl: int) -> bool:
        """Add to a key, unless it would pass a maximum. A key that does not exist counts as 0.

        Parameters:
          key(str): The key.
          amount(int): How much.
          maximum(int): The most that it may become.
          ttl(int): Milliseconds after which it is gone, from now.

        Returns:
          Whether it was changed.
        """
        raise NotImplementedError

    def decr(self, key: str, amount: int, minimum: int, ttl: int) -> bool:
        """Subtract from a key, unless it would fall below a minimum or does not exist.

        Parameters:
          key(str): The key.
          amount(int): How much.
          minimum(int): The least that it may become.
          ttl(int): Milliseconds after which it is gone, from now.

        Returns:
          Whether it was changed.
        """
        raise NotImplementedError

    def incr_and_sum(self, key: str, keys: Callable[[], list[str]], amount: int, maximum: int, ttl: int) -> bool:
        """Add to a key, unless it, or the sum of several keys, would pass a maximum.

        Parameters:
          key(str): The key.
          keys(Callable): Gives the keys of the sum; may be called several times.
          amount(int): How much.
          maximum(int): The most that the key and the sum may become.
          ttl(int): Milliseconds after which the key is gone, from now.

        Returns:
          Whether it was changed.
        """
        raise NotImplementedError

    def take(self, key: str, holder: str, limit: int, ttl: int) -> bool:
        """Take one of a limited number of slots, until it is given back or its lease is over.

        Parameters:
          key(str): The key.
          holder(str): Who takes it. One who holds a slot already keeps it, with a new lease.
          limit(int): How many slots there are.
          ttl(int): The lease: milliseconds after which the slot is free again, from now.

        Returns:
          Whether there was one.
        """
        # A backend of the API reference only counts: the lease is that of the whole counter.
        return self.incr(key, 1, limit, ttl)

    def give_back(self, key: str, holder: str, ttl: int) -> None:
        """Give back the slot that this holder took; nothing if its lease was over.

        Parameters:
          key(str): The key.
          holder(str): As it was taken.
          ttl(int): The lease that it was taken for, in milliseconds.
        """
        self.decr(key, 1, 0, ttl)

    def arrive(self, key: str, member: str, parties: int, ttl: int) -> bool:
        """Note that one of several has arrived; whether it was the one that made them complete.

        A member counts once, however often it arrives, and the one that was the last gets the same
        answer each time: so whoever died between this and what it was to do then does it again.

        Parameters:
          key(str): Of this one occasion and no other: use a UUID.
          member(str): Who arrives.
          parties(int): How many have to, 1 or more. The same for all of them.
          ttl(int): Milliseconds for which the arrivals are remembered, from the latest new one.

        Returns:
          True for the member that was the last of them to arrive, else False.
        """
        # A backend of the API reference only counts, so this takes it several steps: a process that
        # is killed between them leaves its member noted and not counted.
        was_last = f"{key}@last@{member}"
        if not self.add(f"{key}@{member}", 1, ttl):
            return self.decr(was_last, 0, 1, ttl)  # a missing key may count as 0
        if self.incr(key, 1, parties - 1, ttl):
            return False
        # Beyond the number of parties nobody is the last any more.
        return self.add(f"{key}@full", 1, ttl) and self.add(was_last, 1, ttl)

    def wait(self, key: str, timeout: int) -> bool:
        """Wait until ``wait_notify`` is called for a key, or return at once if it was.

        Parameters:
          key(str): The key.
          timeout(int): Milliseconds.

        Returns:
          Whether it was called in time.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot wait.")

    async def async_wait(self, key: str, timeout: int) -> bool:
        """``wait`` for code that runs on an asyncio loop, which nothing blocks meanwhile."""
        import asyncio

        return await asyncio.get_running_loop().run_in_executor(None, self.wait, key, timeout)

    def wait_notify(self, key: str, ttl: int) -> None:
        """End all waits for a key, also those that begin later.

        Parameters:
          key(str): The key.
          ttl(int): Milliseconds for which this is remembered.
        """


class WaitingBackend(RateLimiterBackend):
    """A backend that waits by the values of a store.

    Parameters:
      values(ValueStore): Where what happened is kept.
    """

    def __init__(self, values: ValueStore) -> None:
        self.values = values

    def wait(self, key: str, timeout: int) -> bool:
        return wait_for(self.values, key, timeout) is not None

    async def async_wait(self, key: str, timeout: int) -> bool:
        return await await_for(self.values, key, timeout) is not None

    def wait_notify(self, key: str, ttl: int) -> None:
        self.values.put(key, b"1", ttl)

    def close(self) -> None:
        """End connections and threads. A backend that is used again opens them again. May switch."""
        self.values.close()
