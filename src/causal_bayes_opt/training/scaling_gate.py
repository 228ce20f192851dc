"""The scaling gate: more data and larger systems only after a favourable validation report."""

from __future__ import annotations

import json
from pathlib import Path

from causal_bayes_opt.errors import GateError

_HOW = "`acbo validate --out FOLDER` writes one; --force goes on without"


def check_scaling_gate(report: Path | None, *, force: bool = False) -> None:
    """Let a larger step through, or refuse it.

    Args:
        report: JSON file of a validation.
        force: pass without one.

    Raises:
        GateError: no report, one that cannot be read, or one whose week-2 verdict is not "go".
    """
    if force:
        return
    if report is None:
        raise GateError(f"a step of this size needs a validation report; {_HOW}")
    try:
        found = json.loads(Path(report).read_text(encoding="utf-8"))
        verdict = found["verdicts"]["week_2"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise GateError(f"{str(report)!r} is no validation report ({error}); {_HOW}") from error
    if verdict != "go":
        raise GateError(f"{str(report)!r} says {verdict!r}, not 'go'; {_HOW}")
