"""Run the benchmarks that give rows: ``python -m benchmarks [NAME ...]``; no name runs all of them.

Others train, take hours or write pages of their own, and are run alone; their first lines say how.
"""

from __future__ import annotations

import importlib
import sys

from benchmarks.table import print_table

NAMES = (
    "accuracy",
    "decisions",
    "demonstrations",
    "exact",
    "expert",
    "first_answer",
    "network",
    "peers",
    "sampling",
    "target_alone",
    "teachers",
)


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        print(f"unknown benchmark {unknown[0]!r}; known: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    rows = []
    for name in names or NAMES:
        print(f"running {name} …", file=sys.stderr)
        rows += importlib.import_module(f"benchmarks.{name}").rows()
    print_table(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
