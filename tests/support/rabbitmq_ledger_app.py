"""The ledger's actors as an application of greenq-worker.

GREENQ_LEDGER_URL     of the virtual host
GREENQ_LEDGER_KIND    of the queues: classic or quorum
GREENQ_LEDGER_FILE    where runs are written down
"""

import os
from pathlib import Path

from .rabbitmq_ledger import LONGEST_S, Ledger, open_ledger_broker

ledger = Ledger(Path(os.environ["GREENQ_LEDGER_FILE"]))
broker = open_ledger_broker(
    os.environ["GREENQ_LEDGER_URL"], os.environ["GREENQ_LEDGER_KIND"], ledger, longest_s=LONGEST_S
)
