"""Links to places that a page marks with `<a id="name"></a>`, as docs/reference.md does.

A forge shows such a place as it stands. Sphinx lets it through, too, but does not know it, and would not tell `actor`
from `Actor`: so links to these are made here, before it looks for them.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.osutil import relative_uri


class LinksToAnchors(SphinxTransform):
    default_priority = 500  # before MyST resolves what is within a page

    def apply(self, **_: Any) -> None:
        here = self.env.docname
        for link in list(self.document.findall(nodes.reference)):
            if link.get("id_link") and link["refuri"][1:] in _anchors(self.env.doc2path(here)):
                del link["id_link"]
        for link in list(self.document.findall(addnodes.pending_xref)):
            target = link["reftarget"]
            if link["refdomain"] == "doc" and link["reftargetid"] in _anchors(self.env.doc2path(target)):
                builder = self.app.builder
                uri = relative_uri(builder.get_target_uri(here), builder.get_target_uri(target))
                link.replace_self(
                    nodes.reference("", "", *link.children, refuri=f"{uri}#{link['reftargetid']}", internal=True)
                )


@lru_cache
def _anchors(path: str) -> frozenset[str]:
    return frozenset(re.findall(r'<a id="([^"]+)"></a>', Path(path).read_text()))


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_transform(LinksToAnchors)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
