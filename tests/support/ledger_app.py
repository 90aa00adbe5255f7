"""The ledger's actors as an application of greenq-worker.

GREENQ_LEDGER_PLACE   the broker, as JSON
GREENQ_LEDGER_FILE    where runs are written down
"""

import json
import os
from pathlib import Path

from .ledger import LONGEST_S, Ledger
from .places import Place

broker = Place(*json.loads(os.environ["GREENQ_LEDGER_PLACE"])).open(
    Ledger(Path(os.environ["GREENQ_LEDGER_FILE"])), longest_s=LONGEST_S
)
