"""What the page on security says that no other test shows."""

from __future__ import annotations

import ast
import math
import re
from pathlib import Path

import pytest

import greenq
from greenq.cli.options import parse_options
from greenq.errors import DecodeError
from greenq.settings import PROM_HOST
from greenq.units import host_and_port

ROOT = Path(__file__).resolve().parents[2]

#: Where something is unpickled: what a process of a lane sends, and the encoder that somebody has to set.
UNPICKLES = {"worker/lanes/wire.py", "encoder.py"}
#: Modules and functions that make code or objects of bytes.
MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "yaml"}
FUNCTIONS = {"eval", "exec", "compile", "__import__"}


def test_nothing_is_unpickled_or_evaluated_but_where_this_page_says_so():
    found = set()
    for path in (ROOT / "greenq").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name.partition(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [(node.module or "").partition(".")[0]]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                names = [node.func.id] if node.func.id in FUNCTIONS else []
            if (MODULES | FUNCTIONS) & set(names):
                found.add(path.relative_to(ROOT / "greenq").as_posix())

    assert found == UNPICKLES


def test_what_is_served_is_served_on_loopback_unless_somebody_says_otherwise(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("GREENQ_PROM_HOST", "greenq_prom_host", "GREENQ_HEALTH"):
        monkeypatch.delenv(name, raising=False)

    assert PROM_HOST.get() == "127.0.0.1"
    assert parse_options(["app"]).health is None
    assert host_and_port(parse_options(["app", "--health", "8080"]).health) == ("127.0.0.1", 8080)
    assert host_and_port(parse_options(["app", "--health", "0.0.0.0:8080"]).health) == ("0.0.0.0", 8080)


def test_numbers_that_are_none_and_keys_that_come_twice_are_read_as_python_reads_them():
    data = sent().encode().replace(b'["ann"]', b"[NaN,Infinity]").replace(b'"kwargs":{}', b'"kwargs":{"a":1,"a":2}')

    message = greenq.Message.decode(data)

    assert message.kwargs == {"a": 2}
    assert math.isnan(message.args[0])
    assert math.isinf(message.args[1])


@pytest.fixture
def signed(monkeypatch):
    """The encoder of the page, set."""
    monkeypatch.setenv("SHOP_QUEUE_KEY", "a key that only the shop has")
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/security.md").read_text(), re.DOTALL)
    before = greenq.get_encoder()
    try:
        exec(example, {})
        yield
    finally:
        greenq.set_encoder(before)


def sent():
    return greenq.Message(queue_name="default", actor_name="mail", args=("ann",), kwargs={}, options={})


def test_a_signed_message_is_read(signed):
    message = sent()

    assert greenq.Message.decode(message.encode()) == message


def test_a_message_that_is_not_signed_is_none(signed):
    data = sent().encode()

    for forged in (data[64:], data.replace(b"ann", b"bob"), b"0" * 64 + data[64:], data[:-1], b""):
        with pytest.raises(DecodeError):
            greenq.Message.decode(forged)
