"""Run the benchmarks: ``python -m benchmarks [NAME ...]``; no name runs all of them."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import benchmarks
from benchmarks.table import print_table

_WITHOUT_ROWS = ("table", "sizes", "calibration_loss")  # the last two train, and are run alone


def main(names: list[str]) -> int:
    known = sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if _has_rows(m.name))
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"unknown benchmark {unknown[0]!r}; known: {', '.join(known)}", file=sys.stderr)
        return 2
    rows = []
    for name in names or known:
        print(f"running {name} …", file=sys.stderr)
        rows += importlib.import_module(f"benchmarks.{name}").rows()
    print_table(rows)
    return 0


def _has_rows(name: str) -> bool:
    return not name.startswith("_") and name not in _WITHOUT_ROWS


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
