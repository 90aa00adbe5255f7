"""The house has rooms, and imports point one way through them.

    leaves -> words -> stores -> domain -> plug-ins -> runtime -> doors

The map is drawn from the source. A room may use what is to its left; a plug-in never
another plug-in. Names for type checkers alone do not count: they are not imported.
"""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest

import greenq

ROOT = Path(greenq.__file__).parent

#: What stands in which room, by the first part of its name.
ROOMS = {
    "leaves": {
        *("errors", "clock", "backoff", "names", "encoder", "logging", "verdict"),
        *("log_lines", "log_writer", "json_lines", "nameless", "shared_page", "exit_codes", "extras", "metrics"),
        *("units", "settings", "logged_job", "control_socket", "http_listener", "machine"),
    },
    # What greenq asks of the process it runs in: a room of its own, because
    # it stands between the leaves, which never wait, and all that do.
    "words": {
        *("runtime", "greenlets", "threads", "thread_guard", "lease", "per_process", "cpu", "alarm", "time_left"),
        *("event_loop", "greenlet_loop", "greenlet_selector", "loop_event"),
    },
    # How one talks to a server or a file, for all plug-ins that keep something there.
    "stores": {"stores"},
    "domain": {
        *("message", "actor", "options", "generic", "composition", "consumer", "broker", "bulk", "default_broker"),
        *("failures", "inspection", "suspicion", "current_job"),
    },
    "plug-ins": {"brokers", "middleware", "results", "rate_limits"},
    "runtime": {"worker"},
    "doors": {"__main__", "cli", "dashboard", "health", "supervisor", "watcher"},
}
ORDER = list(ROOMS)

#: Imports the API forces: (who, what). They are made inside functions, when they are needed.
FORCED = {
    ("broker", "middleware"),  # the default list, and which hooks are overridden
    ("default_broker", "brokers.rabbitmq"),
    ("default_broker", "brokers.redis"),
    ("default_broker", "brokers.sqlite"),
    ("default_broker", "brokers.stub"),
    ("broker", "results"),
    ("message", "results"),
    ("composition", "results"),
    ("composition", "rate_limits"),
    ("middleware.prometheus", "worker.sampler"),  # it is handed the worker, and starts this beside it
}
#: Base classes that plug-ins of any kind may be derived from.
CONTRACTS = {"middleware.middleware"}
#: The supervisor must survive everything, so it knows the standard library, psutil and these.
SUPERVISOR_MAY_USE = {
    "errors",
    "exit_codes",
    "json_lines",
    "nameless",
    "shared_page",
    "log_lines",
    "logging",
    "clock",
    "metrics",
    "supervisor",
}
#: Who may import gevent: our words for it, asyncio's loop on it, and the first line of a worker process.
GEVENT = {"greenlets", "greenlet_loop", "greenlet_selector", "worker.process"}


class Import(NamedTuple):
    module: str  # who imports, without "greenq."
    imported: str  # what: without "greenq." if it is ours, else with its own name
    is_ours: bool
    is_inside_function: bool
    line: int

    def __str__(self) -> str:
        return f"greenq/{self.module.replace('.', '/')} line {self.line} imports {self.imported}"


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports_of(module: str, source: str, *, is_package: bool) -> list[Import]:
    """The imports of a module's source that are really made when it runs."""
    found: list[Import] = []
    package = module if is_package else module.rpartition(".")[0]

    def add(name: str, line: int, inside: bool) -> None:
        is_ours = name == "greenq" or name.startswith("greenq.")
        imported = name.removeprefix("greenq").removeprefix(".") if is_ours else name
        found.append(Import(module, imported, is_ours, inside, line))

    def visit(node: ast.AST, inside: bool) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                visit(child, inside)
            return
        if isinstance(node, ast.Import):
            for alias in node.names:
                add(alias.name, node.lineno, inside)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".") if package else []
                parts = parts[: len(parts) - (node.level - 1)]
                base = ".".join(["greenq", *parts, *([node.module] if node.module else [])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                # `from . import signals` names a module, `from .broker import Broker` does not.
                add(whole if whole.removeprefix("greenq.") in MODULES else base, node.lineno, inside)
        inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse(source), False)
    return found


ALL = [
    each
    for module, path in MODULES.items()
    for each in imports_of(module, path.read_text(), is_package=path.name == "__init__.py")
]
OURS = [each for each in ALL if each.is_ours and each.module and each.imported]


def room_of(module: str) -> str | None:
    first = module.split(".")[0]
    return next((room for room, names in ROOMS.items() if first in names), None)


def plug_in_of(module: str) -> str | None:
    """The plug-in that a module belongs to: a broker, all middleware, a backend."""
    parts = module.split(".")
    if parts[0] == "middleware":
        return "middleware"
    if parts[0] == "brokers":
        return ".".join(parts[:2]) if len(parts) > 1 else None
    if parts[0] in ("results", "rate_limits"):
        return ".".join(parts[:3]) if parts[1:2] == ["backends"] else parts[0]
    return None


def is_forced(each: Import) -> bool:
    return each.is_inside_function and any(
        each.module == who and (each.imported == what or each.imported.startswith(what + ".")) for who, what in FORCED
    )


def advice(each: Import) -> str:
    """Which room would suit an import that does not suit where it is."""
    room, other = room_of(each.module), room_of(each.imported)
    return (
        f"{each}: {each.module} stands among the {room}, {each.imported} among the {other}, and imports point "
        f"from the {room} only to {', '.join(ORDER[: ORDER.index(room or ORDER[0]) + 1])}. Such an import would "
        f"suit a room among the {other} or further on: move what needs it there, or hand it in as an argument."
    )


def against_the_direction(imports: list[Import]) -> list[str]:
    return [
        advice(each)
        for each in imports
        if ORDER.index(room_of(each.imported) or "") > ORDER.index(room_of(each.module) or "") and not is_forced(each)
    ]


def between_plug_ins(imports: list[Import]) -> list[str]:
    return [
        f"{each}: one plug-in must not know another. What both need would suit the domain or the leaves."
        for each in imports
        if plug_in_of(each.module)
        and plug_in_of(each.imported)
        and plug_in_of(each.module) != plug_in_of(each.imported)
        and each.imported not in CONTRACTS
        and not is_of_its_kind(each)
    ]


def is_of_its_kind(each: Import) -> bool:
    """Whether a backend takes the base class of its kind, or the door of its kind loads a backend when asked."""
    who, what = plug_in_of(each.module) or "", plug_in_of(each.imported) or ""
    return who.startswith(what + ".") or (each.is_inside_function and what.startswith(who + "."))


@pytest.mark.parametrize("module", [module for module in MODULES if module])
def test_every_module_stands_in_a_room(module):
    assert room_of(module), f"{module} is in no room: name it in ROOMS, in the room it belongs to"


def test_imports_point_one_way():
    assert against_the_direction(OURS) == []


def test_plug_ins_do_not_know_each_other():
    assert between_plug_ins(OURS) == []


def test_nobody_imports_through_the_front_door():
    through = [
        str(each) for each in ALL if each.is_ours and not each.imported and each.module and not _is_version(each)
    ]

    assert through == [], "the front door imports the rooms: import from the room itself"


def _is_version(each: Import) -> bool:
    # __version__ is the only thing that is made there.
    return "__version__" in MODULES[each.module].read_text().splitlines()[each.line - 1]


def test_the_supervisor_knows_no_broker_no_message_and_no_gevent():
    known = [
        f"{each}: the supervisor must survive everything; this would suit the worker, which it starts"
        for each in ALL
        if each.module.startswith("supervisor")
        and (each.imported.split(".")[0] not in SUPERVISOR_MAY_USE if each.is_ours else _is_gevent(each.imported))
    ]

    assert known == []


def test_gevent_comes_from_one_room():
    takers = [
        f"{each}: take what you need from greenq/greenlets.py, by a word of greenq/runtime.py"
        for each in ALL
        if not each.is_ours and _is_gevent(each.imported) and each.module not in GEVENT
    ]

    assert takers == []


def _is_gevent(name: str) -> bool:
    return name.split(".")[0] in ("gevent", "greenlet")


def test_only_the_words_of_the_greenlet_world_are_taken_from_greenlets():
    takers = {each.module for each in OURS if each.imported == "greenlets"}

    assert takers <= {"runtime", "worker.process"}, "rooms take their words from runtime.current()"


# -- the map itself


def drawn(module, source):
    return imports_of(module, textwrap.dedent(source), is_package=False)


def test_a_wrong_import_is_found_and_told_where_it_would_suit():
    (problem,) = against_the_direction(drawn("names", "from .broker import Broker"))

    assert "greenq/names line 1 imports broker" in problem
    assert "would suit a room among the domain" in problem


def test_an_import_of_another_plug_in_is_found():
    assert between_plug_ins(drawn("brokers.redis.broker", "from ..sqlite import store"))
    assert between_plug_ins(drawn("brokers.stub", "from ..middleware import Retries"))
    assert between_plug_ins(drawn("results.backends.redis", "from .sqlite import SqliteBackend"))
    assert between_plug_ins(drawn("results.middleware", "from ..rate_limits.backend import RateLimiterBackend"))
    assert not between_plug_ins(drawn("results.backends.redis", "from ...results import backend"))
    assert not between_plug_ins(drawn("results.middleware", "from ..middleware.middleware import Middleware"))


def test_imports_for_type_checkers_do_not_count():
    source = """
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            from .worker import Worker
        else:
            from .names import check_queue_name
    """

    assert [each.imported for each in drawn("broker", source) if each.is_ours] == ["names"]


def test_a_forced_import_counts_unless_it_is_inside_a_function():
    assert against_the_direction(drawn("broker", "from .middleware import Middleware"))
    assert not against_the_direction(drawn("broker", "def f():\n    from .middleware import Middleware"))
