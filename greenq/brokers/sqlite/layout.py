"""What the broker's file looks like; its tables are in schema.sql."""

from __future__ import annotations

from importlib import resources

from ...stores.sqlite.file import Layout


def _script(name: str) -> str:
    return (resources.files(__package__) / name).read_text("utf-8")


#: The header says "grnq".
MESSAGES = Layout(
    application_id=0x67726E71,
    version=3,
    tables=frozenset({"messages", "dead_letters", "workers"}),
    steps={
        0: _script("schema.sql"),
        1: _script("upgrade_1_to_2.sql") + _script("upgrade_2_to_3.sql"),
        2: _script("upgrade_2_to_3.sql"),
    },
)
