"""Messages composed: one after the other in a pipeline, beside each other in a group.

Here compositions are built, sent and waited for, and here is the form that they have inside
messages (chain.py). What a worker does about them is middleware: Pipelines and GroupCallbacks.

The modules are in the plural, because `group` and `pipeline` are the classes: a submodule of the
same name would take their place here.
"""

from __future__ import annotations

from .groups import group
from .pipelines import pipeline

__all__ = ["group", "pipeline"]
