"""The embedded broker: one SQLite file, shared by all processes of one machine."""

from .broker import SqliteBroker

__all__ = ["SqliteBroker"]
