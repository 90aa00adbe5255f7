"""Makes docs/reference.md of the docstrings: python docs/build_reference.py

What stands where is OUTLINE; all else is in the code. A test says whether the page is up to date.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import textwrap
import types
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

PAGE = Path(__file__).parent / "reference.md"
sys.path.insert(0, str(PAGE.parents[1]))

from greenq.settings import SETTINGS  # noqa: E402 - of the checkout that the page is in


class Section(NamedTuple):
    """A part of the page.

    Attributes:
      names(list[str]): What it describes: paths without "greenq.".
    """

    title: str
    text: str
    names: list[str]


OUTLINE = [
    Section(
        "Functions",
        "The broker and the encoder that count where none is given.",
        ["get_broker", "set_broker", "get_encoder", "set_encoder", "get_logger"],
    ),
    Section("Inside a job", "What a job can say of itself: see [what runs](sight.md).", ["progress"]),
    Section(
        "Actors and messages",
        "With all options in tables: [actors and their options](actors.md). What messages look like outside of Python: "
        "[the wire format](wire-format.md).",
        ["actor", "Actor", "Message", "remaining_ms"],
    ),
    Section(
        "Class-based actors", "With an example: [actors as classes](actors.md#actors-as-classes).", ["GenericActor"]
    ),
    Section("Message composition", "With examples: [composition](composition.md).", ["group", "pipeline"]),
    Section(
        "Message encoders",
        "They turn messages into bytes and back; results, too.",
        ["Encoder", "JSONEncoder", "PickleEncoder"],
    ),
    Section(
        "Brokers",
        "One contract, kept by all of them. What is one broker's own: [RabbitMQ](rabbitmq.md), [Redis](redis.md).",
        [
            *("Broker", "Consumer", "MessageProxy"),
            *("brokers.rabbitmq.RabbitmqBroker", "brokers.redis.RedisBroker", "brokers.stub.StubBroker"),
            "brokers.sqlite.SqliteBroker",
        ],
    ),
    Section(
        "Dead letters and counts",
        "What brokers tell operators. With examples: [dead letters](dead-letters.md).",
        ["inspection.QueueCounts", "inspection.DeadLetters", "inspection.Page", "inspection.DeadLetter"],
    ),
    Section("Middleware", "What can be done on the way of a message, and when.", ["Middleware"]),
    Section(
        "Default middleware",
        "In this order, `middleware.default_middleware` is what brokers have that are given none.",
        [
            *("middleware.AgeLimit", "middleware.TimeLimit", "middleware.ShutdownNotifications"),
            *("middleware.Callbacks", "middleware.Pipelines", "middleware.Retries"),
        ],
    ),
    Section(
        "Optional middleware",
        "To be added with `broker.add_middleware()`. [Results](#results.Results) are one, too.",
        [
            *("middleware.AsyncIO", "middleware.CurrentMessage", "middleware.GroupCallbacks"),
            "middleware.prometheus.Prometheus",
        ],
    ),
    Section(
        "Middleware errors",
        "Also to be had as `greenq.errors`, with [all the others](#errors).",
        [
            *("middleware.MiddlewareError", "middleware.SkipMessage", "middleware.Interrupt"),
            *("middleware.TimeLimitExceeded", "middleware.Shutdown"),
        ],
    ),
    Section("Results", "With examples: [results](results.md).", ["results.Results"]),
    Section(
        "Result backends",
        "Where results are kept.",
        [
            "results.ResultBackend",
            *("results.backends.MemcachedBackend", "results.backends.RedisBackend"),
            *("results.backends.StubBackend", "results.backends.SqliteBackend"),
        ],
    ),
    Section(
        "Rate limiter backends",
        "Where limits are counted.",
        [
            "rate_limits.RateLimiterBackend",
            *("rate_limits.backends.MemcachedBackend", "rate_limits.backends.RedisBackend"),
            *("rate_limits.backends.StubBackend", "rate_limits.backends.SqliteBackend"),
        ],
    ),
    Section(
        "Rate limiters",
        "With examples: [rate limits](rate-limits.md).",
        [
            *("rate_limits.RateLimiter", "rate_limits.BucketRateLimiter", "rate_limits.ConcurrentRateLimiter"),
            "rate_limits.WindowRateLimiter",
        ],
    ),
    Section("Barriers", "A meeting of several processes.", ["rate_limits.Barrier"]),
    Section(
        "Workers",
        "`greenq-worker` runs one in each of its processes. Tests make their own.",
        ["Worker", "worker.ConsumerThread", "worker.WorkerThread"],
    ),
    Section(
        "Errors",
        "All of them can be imported from `greenq` and from `greenq.errors`.",
        [
            *("GreenqError", "BrokerError", "DecodeError", "ActorNotFound", "QueueNotFound", "QueueJoinTimeout"),
            *("ConnectionError", "ConnectionClosed", "ConnectionFailed", "BrokerUnusable", "QueueMismatch"),
            *("StorageError", "EnqueueManyFailed", "MessageTooLarge", "HubBlocked", "LaneDied"),
            *("RateLimitExceeded", "RateLimiterBusy", "Retry"),
            *("results.ResultError", "results.ResultMissing", "results.ResultTimeout", "results.ResultFailure"),
        ],
    ),
]

#: Second names of the same thing.
ALIASES = {
    "GreenqError": ["DramatiqError"],
    "ConnectionError": ["BrokerConnectionError"],
    "middleware.prometheus.Prometheus": ["middleware.Prometheus"],
}

#: What is public for greenq's own rooms and of no use to its callers.
LEFT_OUT = {
    "Actor": {"coroutine", "is_coroutine", "run_guarded"},
    "Broker": {"hooks", "log_failed_hook", "prepare"},
    "Consumer": {"hand_over_taken", "rest", "unwritten", "wake"},
    "group": {"step"},
    "pipeline": {"head", "steps"},
    "worker.ConsumerThread": {
        *("close", "is_fetching", "pause", "resume", "stop", "wait_until_quiet", "held_messages"),
    },
    "worker.WorkerThread": None,
    "Worker": {"add_queue", "notify_shutdown"},
}

_BULLET = re.compile(r"(?P<names>\**[a-z_]\w*(?:, \**\w+)*|[A-Z]\w+)(?:\((?P<type>[^:]*)\))?: (?P<text>.*)")


def build() -> str:
    """The page."""
    parts = [_INTRODUCTION, _contents(), *(_section(each) for each in OUTLINE), _variables()]
    page = "\n\n".join(parts) + "\n"
    # What is a parameter and an attribute as well is linked to where it comes first.
    known: set[str] = set()

    def once(match: re.Match[str]) -> str:
        is_known = match[1] in known
        known.add(match[1])
        return "" if is_known else match[0]

    return re.sub(r"\n\n\n+", "\n\n", re.sub(r'<a id="([^"]+)"></a>', once, page))


_INTRODUCTION = """\
<!-- Made by docs/build_reference.py from the docstrings: change those, not this page. -->

# Reference

Every public name, in the order of Dramatiq's reference, whose names are all here: `import greenq as dramatiq` is enough
for an application's modules. For what differs see [coming from Dramatiq](coming-from-dramatiq.md), for options of the
command `greenq-worker --help`.

All durations are milliseconds unless something else is said. *May switch* means that other greenlets may run before the
call returns, because it waits for a server, a file or another job; in a process that is not patched by gevent it blocks
its thread. What does not say so returns at once, with no other greenlet in between. All of it may be called from any
thread or greenlet, unless something else is said."""


def _contents() -> str:
    lines = ["## Contents", ""]
    for section in OUTLINE:
        names = ", ".join(f"[{name.rpartition('.')[2]}](#{name})" for name in section.names)
        lines.append(f"- [{section.title}](#{_slug(section.title)}): {names}")
    lines.append("- [Environment variables](#environment-variables)")
    return "\n".join(lines)


def _slug(title: str) -> str:
    return title.lower().replace(" ", "-")


def _section(section: Section) -> str:
    return "\n\n".join([f"## {section.title}", section.text, *(_entry(name) for name in section.names)])


def _variables() -> str:
    rows = [f'| <a id="{each.name}"></a>`{each.name}` | {each.default_told} | {each.meaning} |' for each in SETTINGS]
    return "\n".join(
        [
            "## Environment variables",
            "",
            "In capitals or in lower case; an empty one counts as not set. Times are milliseconds, or have a unit "
            "(`90s`, `7d`). Those of the command's options are on the page of [the command line](command-line.md).",
            "",
            *("| name | default | meaning |", "|---|---|---|", *rows),
        ]
    )


# -- one name


def resolve(path: str) -> Any:
    """What is to be had under this path of greenq."""
    parts = path.split(".")
    found: Any = importlib.import_module("greenq")
    for count, part in enumerate(parts, 1):
        if inspect.ismodule(found) and not hasattr(found, part):
            importlib.import_module(".".join(["greenq", *parts[:count]]))
        found = getattr(found, part)
    return found


#: The path of each class that the page describes.
_PATHS = {resolve(name): name for section in OUTLINE for name in section.names if inspect.isclass(resolve(name))}


def _entry(path: str) -> str:
    found = resolve(path)
    anchors = "".join(f'<a id="{name}"></a>' for name in [path, *ALIASES.get(path, [])])
    if not inspect.isclass(found):
        return f"{anchors}\n### `greenq.{path}{_signature(found)}`\n\n{_rendered(_docstring(found, path))}"
    kind = "exception" if issubclass(found, BaseException) else "class"
    parts = [f"{anchors}\n### {kind} `greenq.{path}{_signature(found)}`"]
    if path in ALIASES:
        parts.append("Also called " + ", ".join(f"`greenq.{name}`" for name in ALIASES[path]) + ".")
    base = _named_base(found)
    if base:
        parts.append(f"Derived from {base}.")
    parts.append(_rendered(_docstring(found, path), path))
    inherited = []
    for name in _members(found, path):
        owner = _described_by(found, name)
        if owner is found:
            parts.append(_member(found, name, path))
        elif owner is not None:
            inherited.append(f'<a id="{path}.{name}"></a>[{name}](#{_PATHS[owner]}.{name})')
    if inherited:
        parts.append(f"As of its base class: {', '.join(inherited)}.")
    return "\n\n".join(parts)


def _named_base(found: Any) -> str:
    base = found.__mro__[1]
    while base not in _PATHS and base.__module__.startswith("greenq"):
        base = base.__mro__[1]
    if base in _PATHS:
        return f"[{base.__name__}](#{_PATHS[base]})"
    return f"`{base.__name__}`" if issubclass(base, BaseException) else ""


def _members(found: Any, path: str) -> list[str]:
    """The names of its methods and properties, in the order in which they are written."""
    if issubclass(found, BaseException) or LEFT_OUT.get(path, ()) is None:
        return []
    bases = [each for each in found.__mro__ if each.__module__.startswith("greenq")]
    names = dict.fromkeys(name for each in bases for name in vars(each))
    left_out = {name for each in bases for name in LEFT_OUT.get(_PATHS.get(each, ""), ()) or ()}
    hooks = resolve("Middleware")
    if hooks in bases[1:]:
        left_out.update(dir(hooks))  # they are described once
    return [
        name
        for name in names
        if (not name.startswith("_") or name in ("__iter__", "__next__"))
        and name not in left_out
        and isinstance(
            inspect.getattr_static(found, name), property | cached_property | classmethod | types.FunctionType
        )
    ]


def _described_by(found: Any, name: str) -> Any:
    """The class of this page in whose part a member is described; None if it has no docstring."""
    for each in found.__mro__:
        if name in vars(each) and _own_docstring(vars(each)[name]):
            return each if each in _PATHS else found
    return None


def _own_docstring(member: Any) -> str | None:
    doc: str | None = getattr(member.__func__ if isinstance(member, classmethod) else member, "__doc__", None)
    return doc


def _member(owner: Any, name: str, path: str) -> str:
    member = inspect.getattr_static(owner, name)
    anchor = f'<a id="{path}.{name}"></a>\n'
    inherited = next(
        vars(each)[name] for each in owner.__mro__ if name in vars(each) and _own_docstring(vars(each)[name])
    )
    text = _rendered(_docstring(inherited, f"{path}.{name}"))
    short = path.rpartition(".")[2]
    if isinstance(member, property | cached_property):
        return f"{anchor}#### property `{short}.{name}`\n\n{text}"
    kind = "classmethod " if isinstance(member, classmethod) else ""
    if inspect.iscoroutinefunction(member):
        kind = "async "
    if getattr(member, "__isabstractmethod__", False):
        kind = "abstract "
    inner = member.__func__ if isinstance(member, classmethod) else member
    return f"{anchor}#### {kind}`{short}.{name}{_signature(inner, is_method=True)}`\n\n{text}"


def _signature(found: Any, *, is_method: bool = False) -> str:
    """Parameters and defaults, without types: those are below it, or in the code."""
    try:
        signature = inspect.signature(found)
    except ValueError:  # an exception that is nothing but its class
        return ""
    parameters = [
        each.replace(annotation=each.empty, default=_Named(each.default) if _is_class(each) else each.default)
        for each in list(signature.parameters.values())[1 if is_method else 0 :]
    ]
    return str(signature.replace(parameters=parameters, return_annotation=signature.empty))


def _is_class(parameter: inspect.Parameter) -> bool:
    return inspect.isclass(parameter.default) and parameter.default is not parameter.empty


class _Named:
    """A class as the default of a parameter, by its name."""

    def __init__(self, named: Any) -> None:
        self._name = named.__name__

    def __repr__(self) -> str:
        return str(self._name)


def _docstring(found: Any, path: str) -> str:
    text = _own_docstring(found)
    if not text:
        raise SystemExit(f"greenq.{path} has no docstring: say there what the caller gets")
    return inspect.cleandoc(text)


# -- docstrings to Markdown


def _rendered(docstring: str, path: str = "") -> str:
    """A docstring as Markdown.

    Parameters:
      path(str): Of the class whose docstring it is; what it lists can be linked to then.
    """
    return "\n\n".join(_block(each.splitlines(), path) for each in _blocks(docstring))


def _blocks(docstring: str) -> list[str]:
    """Its paragraphs. An example stays in one piece, with its empty lines."""
    blocks: list[str] = []
    for block in re.split(r"\n\n+", docstring):
        if blocks and _is_code(block) and _is_code(blocks[-1]):
            blocks[-1] += "\n\n" + block
        else:
            blocks.append(block)
    return blocks


def _is_code(block: str) -> bool:
    return all(line.startswith("    ") or not line for line in block.splitlines())


def _block(lines: list[str], path: str) -> str:
    if _is_code("\n".join(lines)):
        return "```python\n" + textwrap.dedent("\n".join(lines)) + "\n```"
    count = next((at for at, line in enumerate(lines) if line.startswith("  ")), len(lines))
    text = _inline(" ".join(lines[:count]))
    if count == len(lines):
        return text
    items = _items(lines[count:], "" if text == "Raises:" else path)
    return f"{text} {items}".strip() if not items.startswith("- ") else f"{text}\n\n{items}".strip()


def _items(lines: list[str], path: str) -> str:
    """Indented lines as a list, or as a paragraph if they name nothing."""
    indent = min(len(line) - len(line.lstrip()) for line in lines)
    items: list[str] = []
    for line in lines:
        if items and line.startswith(" " * (indent + 1)):
            items[-1] += " " + line.strip()
        else:
            items.append(line.strip())
    matches = [match for item in items if (match := _BULLET.fullmatch(item))]
    if len(matches) < len(items):
        return _inline(" ".join(items))
    return "\n".join(_item(match, path) for match in matches)


def _item(match: re.Match[str], path: str) -> str:
    names = match["names"].split(", ")
    anchors = "".join(f'<a id="{path}.{name.lstrip("*")}"></a>' for name in names) if path else ""
    kind = f" ({match['type']})" if match["type"] else ""
    return f"- {anchors}{', '.join(f'`{name}`' for name in names)}{kind}: {_inline(match['text'])}"


def _inline(text: str) -> str:
    return re.sub(r"``(.+?)``", r"`\1`", text)


if __name__ == "__main__":
    PAGE.write_text(build())
