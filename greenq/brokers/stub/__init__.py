"""The broker in the memory of one process, for tests."""

from .broker import StubBroker

__all__ = ["StubBroker"]
