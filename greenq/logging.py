"""Loggers, named after the module and, if given, the thing that logs."""

from __future__ import annotations

import logging


def get_logger(module: str, name: object | None = None) -> logging.Logger:
    """The logger of a module, or of a class or named thing in it.

    Parameters:
      module(str): Usually ``__name__``.
      name(str | type): A name, or a class whose name is taken. Default: the module alone.
    """
    if name is None:
        return logging.getLogger(module)
    return logging.getLogger(f"{module}.{name.__name__ if isinstance(name, type) else name}")
