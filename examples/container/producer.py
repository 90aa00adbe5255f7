"""Sends orders: python producer.py [HOW_MANY]"""

from __future__ import annotations

import sys

import shop

if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    shop.confirm.send_many((number, 123_456 + number) for number in range(1, count + 1))
    print(f"sent {count} orders", flush=True)
