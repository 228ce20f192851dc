"""The scaling gate: more data and larger systems only after a favourable validation report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from causal_bayes_opt.errors import CausalBayesOptError, GateError
from causal_bayes_opt.surrogate.network import DEFAULT_MODEL, load_pretrained, model_digest
from causal_bayes_opt.training.criteria import ValidationCriteria
from causal_bayes_opt.training.held_out import HeldOut, digest_of_systems, generate_test_graphs

REPORT_FORMAT = 1
_HOW = "`acbo validate --out FOLDER` writes one; --force goes on without"


def check_scaling_gate(
    report: Path | None,
    *,
    model: str | Path = DEFAULT_MODEL,
    criteria: ValidationCriteria | None = None,
    force: bool = False,
) -> None:
    """Let a larger step through, or refuse it.

    A report opens the gate for the weights that it judged, on data that this version of the
    package draws again, by the thresholds that are asked for, and only as it was written.

    Args:
        report: JSON file of a validation.
        model: name or path of the model that the step is for.
        criteria: thresholds that the report must have used; None: the default ones.
        force: pass without a report.

    Raises:
        GateError: no report, one that cannot be read, was changed, is about another model, other
            data or other thresholds, or whose week-2 verdict is not "go".
    """
    if force:
        return
    if report is None:
        raise GateError(f"a step of this size needs a validation report; {_HOW}")
    content = _read(Path(report))
    for reason in (
        _verdict(content),
        _whole(content),
        _thresholds(content, criteria or ValidationCriteria()),
        _model(content, model),
        _data(content),
    ):
        if reason:
            raise GateError(f"{str(report)!r} {reason}; {_HOW}")


def content_digest(content: Mapping[str, Any]) -> str:
    """A hash of a report's content, its own digest left out."""
    rest = {name: value for name, value in content.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _read(report: Path) -> dict[str, Any]:
    try:
        content = json.loads(report.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GateError(f"{str(report)!r} is no validation report ({error}); {_HOW}") from error
    parts = ("format", "verdicts", "criteria", "model", "data", "digest")
    if not isinstance(content, dict) or any(part not in content for part in parts):
        raise GateError(f"{str(report)!r} is no validation report; {_HOW}")
    if content["format"] != REPORT_FORMAT:
        raise GateError(
            f"{str(report)!r} has the format {content['format']!r}; this version reads "
            f"{REPORT_FORMAT}; {_HOW}"
        )
    return content


def _verdict(content: Mapping[str, Any]) -> str:
    verdict = content["verdicts"].get("week_2")
    return "" if verdict == "go" else f"says {verdict!r}, not 'go'"


def _whole(content: Mapping[str, Any]) -> str:
    same = content["digest"] == content_digest(content)
    return "" if same else "was changed after it was written"


def _thresholds(content: Mapping[str, Any], asked: ValidationCriteria) -> str:
    same = content["criteria"] == asdict(asked)
    return "" if same else "used other thresholds than those that are asked for"


def _model(content: Mapping[str, Any], model: str | Path) -> str:
    if content["model"]["digest"] == model_digest(load_pretrained(model)):
        return ""
    return f"judged other weights ({content['model']['name']!r}) than {str(model)!r} has now"


def _data(content: Mapping[str, Any]) -> str:
    described = content["data"]
    try:
        held_out = described["held_out"].items()
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in held_out}
        systems = generate_test_graphs(int(described["systems"]), config=HeldOut(**fields))
        same = digest_of_systems(systems) == described["digest"]
    except (CausalBayesOptError, KeyError, TypeError, ValueError):
        same = False
    return "" if same else "judged on data that this version does not draw"
