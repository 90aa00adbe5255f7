"""The navigation is what the lists of links on some pages say, which so read well on a forge, too.

Each section of such a page is a part of the navigation, with its title and the pages that its list begins with. Sphinx
warns of a page that is in none, which ends the build.
"""

from __future__ import annotations

import posixpath
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

#: Which pages' lists: of the first the sections' titles are shown.
LISTS = ["docs/index", "docs/decisions/README"]


class Navigation(SphinxTransform):
    default_priority = 400  # before links to pages become anything else

    def apply(self, **_: Any) -> None:
        here = self.env.docname
        if here not in LISTS:
            return
        for section in list(self.document.findall(nodes.section)):
            for given in [each for each in section.children if isinstance(each, nodes.bullet_list)]:
                entries = [entry for item in given.children if (entry := _entry(item))]
                section += self._tree(entries, section.next_node(nodes.title).astext() if here == LISTS[0] else None)

    def _tree(self, entries: list[tuple[str, str]], caption: str | None) -> nodes.compound:
        tree = addnodes.toctree(
            parent=self.env.docname,
            entries=entries,
            includefiles=[page for _, page in entries],
            maxdepth=1,
            caption=caption,
            rawcaption=caption,
            glob=False,
            hidden=True,
            includehidden=False,
            numbered=0,
            titlesonly=True,
        )
        tree.source, tree.line = self.document["source"], 1
        return nodes.compound("", tree, classes=["toctree-wrapper"])


def _entry(item: nodes.Node) -> tuple[str, str] | None:
    """The title and the page that an item of a list begins with."""
    link = next((each for each in item.findall(addnodes.pending_xref) if each["refdomain"] == "doc"), None)
    return (link.astext(), posixpath.normpath(link["reftarget"])) if link else None


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_transform(Navigation)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
