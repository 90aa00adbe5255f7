"""Makes an SVG of each drawing in docs/diagrams: python docs/build_diagrams.py

Needs Graphviz (on Debian and Ubuntu: apt-get install graphviz). Where lines and letters come to lie depends on its
version and on the fonts of the machine, so nobody compares pictures: each says of which text it was made, and a test
compares that.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

DIAGRAMS = Path(__file__).parent / "diagrams"


def digest(drawing: Path) -> str:
    """What a picture says of its text."""
    return hashlib.sha256(drawing.read_bytes()).hexdigest()[:16]


def build(drawing: Path) -> str:
    """The picture."""
    command = ["dot", "-Tsvg", str(drawing)]
    made = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    # Whoever looks at it may have other fonts than who made it, and the letters of most are no wider than these.
    made = made.replace('font-family="Helvetica,sans-Serif"', 'font-family="Helvetica, Arial, sans-serif"')
    note = f"<!-- Made of {drawing.name} ({digest(drawing)}) by docs/build_diagrams.py: change that, not this. -->"
    return re.sub(r"<!DOCTYPE.*?<svg", f"{note}\n<svg", made, count=1, flags=re.DOTALL)


if __name__ == "__main__":
    for each in sorted(DIAGRAMS.glob("*.dot")):
        each.with_suffix(".svg").write_text(build(each))
