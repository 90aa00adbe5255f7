"""How the site is made of the Markdown in this repository: see CONTRIBUTING.md for the command.

The root of the repository is what Sphinx reads, not docs/ alone: so one relative link leads to the same page on the
site and on a forge, whichever folder the page is in. What links to a file that is no page, and what is in the
navigation, is in docs/site_pages.
"""

from __future__ import annotations

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS.parent), str(DOCS)]

from greenq import __version__  # noqa: E402 - of the checkout that the page is in

project = "greenq"
release = version = __version__
extensions = ["myst_parser", "site_pages.anchors", "site_pages.navigation", "site_pages.sources"]

root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", "examples/**.md", "loadtests/**.md", "tests/README.md"]
exclude_patterns = [".*", "build", "docs/_build", "**/__pycache__"]

# As forges make them: `## Exit codes` is #exit-codes.
myst_heading_anchors = 4

smartquotes = False  # a "success" is to be copied as it stands

html_theme = "furo"
html_title = "greenq"
html_static_path = ["_static"]
templates_path = ["_templates"]
html_css_files = ["site.css"]
html_additional_pages = {"index": "index.html"}  # leads on to docs/index.html
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b6b3a", "color-brand-content": "#0b6b3a"},
    "dark_css_variables": {"color-brand-primary": "#6fce9b", "color-brand-content": "#6fce9b"},
}
pygments_style = "friendly"
pygments_dark_style = "github-dark"
