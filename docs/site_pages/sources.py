"""Links from pages to code: the site has a page of each file that a page links to, and of the folders.

So what is said on a page, and the test that shows it, are one click apart, wherever the site is, and without a forge. A
link whose text is the name of a function leads to its line.
"""

from __future__ import annotations

import html
import re
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import TextLexer, get_lexer_for_filename
from pygments.util import ClassNotFound
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms import SphinxTransform
from sphinx.util.osutil import relative_uri

ROOT = Path(__file__).resolve().parents[2]
#: Not a name that the repository has.
FOLDER = "files"


class LinksToSources(SphinxTransform):
    default_priority = 400  # before files become downloads, and folders unknown

    def apply(self, **_: Any) -> None:
        linked = _linked(self.env)[self.env.docname] = set()
        links = [*self.document.findall(addnodes.download_reference), *self.document.findall(addnodes.pending_xref)]
        for link in links:
            if link["refdomain"] is not None:
                continue
            path = Path(self.env.relfn2path(link["reftarget"])[1]).resolve()
            if not (path.is_dir() or _is_text(path)) or ROOT not in path.parents:
                continue
            name = path.relative_to(ROOT).as_posix()
            if f"{name}/README" in self.env.found_docs:  # as a forge shows it below the folder
                link.attributes.update(refdomain="doc", reftarget=f"{name}/README", reftargetid=None)
                continue
            linked.add(name)
            uri = relative_uri(self.app.builder.get_target_uri(self.env.docname), _uri(self.app, name))
            fragment = _line(path, link.astext())
            link.replace_self(nodes.reference("", "", *_breakable(link.children), refuri=uri + fragment, internal=True))


def _breakable(children: list[nodes.Node]) -> list[nodes.Node]:
    """The text of a link, in which a line may be broken after each part of a name: tables are narrow."""
    broken: list[nodes.Node] = []
    for child in children:
        text = child.astext()
        if not text.isidentifier():
            broken.append(child)
            continue
        for part in re.findall(r"[^_]*_*", text):
            broken += [nodes.Text(part), nodes.raw("", "<wbr>", format="html")]
    return broken


def _linked(env: BuildEnvironment) -> dict[str, set[str]]:
    """The files and folders that each page links to."""
    # Extensions of Sphinx keep what they know of pages on its environment, whose class has no such attribute.
    if not hasattr(env, "greenq_sources"):
        env.greenq_sources = {}  # type: ignore[attr-defined]
    found: dict[str, set[str]] = env.greenq_sources  # type: ignore[attr-defined]
    return found


def _uri(app: Sphinx, name: str) -> str:
    return app.builder.get_target_uri(f"{FOLDER}/{name}")


def _line(path: Path, text: str) -> str:
    """The fragment for the line that defines what a link's text names, if the file does."""
    if path.suffix != ".py" or not text.isidentifier():
        return ""
    number = next(
        (number for number, line in enumerate(_lines(path), 1) if re.match(rf"(def|class) {text}\b", line)), 0
    )
    return f"#line-{number}" if number else ""


def _is_text(path: Path) -> bool:
    try:
        return path.is_file() and bool(_lines(path))
    except UnicodeDecodeError:
        return False


@lru_cache
def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def _write(app: Sphinx, error: Exception | None) -> None:
    """Write the pages of what is linked to. They are no pages of the theme: code needs the width, and no navigation."""
    if error is not None or app.builder.format != "html":
        return
    names = set().union(*_linked(app.env).values())
    for name in list(names):
        names.update(_contents(ROOT / name))
    for name in sorted(names):
        path = ROOT / name
        page = app.builder.templates.render(
            "source.html",
            {
                "project": app.config.project,
                "version": app.config.version,
                "name": name,
                "home": relative_uri(_uri(app, name), app.builder.get_target_uri(app.config.root_doc)),
                "style": _style(),
                "body": _folder(app, name) if path.is_dir() else _file(path, app.config.highlight_sources),
            },
        )
        written = Path(app.outdir, unquote(_uri(app, name)))
        written.parent.mkdir(parents=True, exist_ok=True)
        written.write_text(page)


def _contents(folder: Path) -> list[str]:
    """The files of a folder, without those of the folders in it."""
    if not folder.is_dir():
        return []
    files = sorted(each for each in folder.iterdir() if _is_text(each) and not each.name.startswith("."))
    return [each.relative_to(ROOT).as_posix() for each in files]


def _folder(app: Sphinx, name: str) -> str:
    here = _uri(app, name)
    items = [
        f'<li><a href="{html.escape(relative_uri(here, _uri(app, each)))}">{html.escape(Path(each).name)}</a></li>'
        for each in _contents(ROOT / name)
    ]
    return f"<ul>{''.join(items)}</ul>"


def _file(path: Path, is_highlighted: bool) -> str:
    try:
        lexer = get_lexer_for_filename(path.name) if is_highlighted else TextLexer()
    except ClassNotFound:
        lexer = TextLexer()
    return highlight(path.read_text(), lexer, _FORMATTER)


_FORMATTER = HtmlFormatter(linenos="inline", lineanchors="line", anchorlinenos=True, style="friendly")


@lru_cache
def _style() -> str:
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    own = (Path(__file__).parent / "sources.css").read_text()
    return f"{_FORMATTER.get_style_defs('.highlight')}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n{own}"


def _forget(_: Sphinx, env: BuildEnvironment, page: str) -> None:
    _linked(env).pop(page, None)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_config_value("highlight_sources", True, "html", bool)
    app.add_transform(LinksToSources)
    app.connect("env-purge-doc", _forget)
    app.connect("build-finished", _write)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
