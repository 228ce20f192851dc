"""The judge: is the amortized model worth it? Evidence, criteria, verdicts, one report."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import haiku as hk
import numpy as np

from causal_bayes_opt.errors import ConfigError
from causal_bayes_opt.surrogate.joint import Network
from causal_bayes_opt.surrogate.network import (
    DEFAULT_MODEL,
    NetworkSurrogate,
    TrainedModel,
    load_pretrained,
    model_digest,
    save_model,
)
from causal_bayes_opt.surrogate.protocol import Surrogate
from causal_bayes_opt.training import evidence, verdicts
from causal_bayes_opt.training.criteria import ValidationCriteria, Verdict, all_hold, most_hold
from causal_bayes_opt.training.findings import gather
from causal_bayes_opt.training.held_out import (
    HeldOutSystem,
    describe,
    digest_of_systems,
    generate_test_graphs,
)
from causal_bayes_opt.training.scaling_gate import REPORT_FORMAT, content_digest
from causal_bayes_opt.training.speed import amortized_study, expert_study
from causal_bayes_opt.training.validation_config import ValidationConfig

__all__ = [
    "ValidationConfig",
    "ValidationCriteria",
    "ValidationReport",
    "generate_test_graphs",
    "judge",
    "measure_amortized_inference",
    "measure_parent_scale_performance",
    "validate_amortization_benefit",
]


@dataclass(frozen=True)
class ValidationReport:
    """The judge's findings as JSON values, and the verdicts."""

    content: dict[str, Any]

    @property
    def week_2(self) -> Verdict:
        """Whether to go on to more data: every criterion must hold."""
        return Verdict(self.content["verdicts"]["week_2"])

    @property
    def week_4(self) -> Verdict:
        """Whether to invest in production: most criteria must hold."""
        return Verdict(self.content["verdicts"]["week_4"])

    @property
    def exit_status(self) -> int:
        """0 go, 1 no-go, 2 undecided, of week 2."""
        return {Verdict.GO: 0, Verdict.NO_GO: 1, Verdict.UNDECIDED: 2}[self.week_2]

    def to_json(self) -> str:
        """The content and its own digest, which the scaling gate checks."""
        return json.dumps({**self.content, "digest": content_digest(self.content)}, indent=1)


def validate_amortization_benefit(
    model: str | Path | Network | None = None,
    params: hk.Params | None = None,
    config: ValidationConfig | None = None,
    *,
    card: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    report: Callable[[str], None] | None = None,
) -> ValidationReport:
    """Judge a model against the expert, exact inference and the truth on systems it never saw.

    Args:
        model: name or path of a saved one, or a network whose weights are `params`; None: the
            shipped linear one.
        params: weights, for a network.
        config: see the class.
        card: for a network, what `configuration.model_card` says of its training; without it
            nobody can tell whether it was trained on what it is judged on.
        folder: keeps demonstrations and runs of the scaling study; None: a temporary one.
        report: called with a sentence after each part.

    Raises:
        ModelError: no such model.
        ConfigError: a network without weights, or weights without a network.
    """
    trained = _trained(model, params, card or {})
    with tempfile.TemporaryDirectory() as temporary:
        saved = save_model(trained, Path(temporary) / "model")
        batch = int(trained.card.get("loop", {}).get("batch_size", 32))
        memory = evidence.peak_memory(saved, batch)
        return judge(
            NetworkSurrogate(trained),
            config or ValidationConfig(),
            name=trained.name,
            digest=model_digest(trained),
            card=trained.card,
            memory=memory,
            folder=folder or Path(temporary),
            report=report,
        )


def judge(
    surrogate: Surrogate,
    config: ValidationConfig,
    *,
    name: str,
    digest: str = "",
    card: Any = None,
    memory: dict[str, int] | None = None,
    folder: Path | None = None,
    report: Callable[[str], None] | None = None,
) -> ValidationReport:
    """Judge any surrogate in the place of the amortized model; see the function above.

    Args:
        surrogate: what is judged.
        config: see the class.
        name: what it is called in the report.
        digest: of its weights, to which the report is bound.
        card: of the model: what it was trained on, and what it cost.
        memory: bytes of inference and training, where measured.
        folder: for the scaling study, which needs one.
        report: called with a sentence after each part.

    Raises:
        ConfigError: a scaling study without a folder.
    """
    if config.scaling is not None and folder is None:
        raise ConfigError("the scaling study needs a folder; give one, or scaling=None")
    systems = generate_test_graphs(config.systems, config=config.held_out)
    found = gather(
        surrogate,
        systems,
        config,
        card=card or {},
        memory=memory,
        folder=folder,
        tell=report or (lambda sentence: None),
    )
    measured = found.quality, found.speed, found.resources
    week_2 = verdicts.week_2(config.criteria, *measured)
    week_4 = verdicts.week_4(
        config.criteria, found.transfer, found.scaling, found.speed, found.cost
    )
    indicators = verdicts.no_go_indicators(config.criteria, *measured)
    content = {
        "format": REPORT_FORMAT,
        "model": {"name": name, "digest": digest},
        "data": {
            "systems": config.systems,
            "held_out": describe(config.held_out),
            "digest": digest_of_systems(systems),
        },
        "criteria": asdict(config.criteria),
        "verdicts": {
            "week_2": all_hold(week_2).value,
            "week_4": most_hold(week_4).value,
        },
        "week_2": [criterion.to_json() for criterion in week_2],
        "no_go_indicators": [criterion.to_json() for criterion in indicators],
        "week_4": [criterion.to_json() for criterion in week_4],
        **found._asdict(),
    }
    return ValidationReport(_plain(content))


def measure_amortized_inference(
    model: Network,
    params: hk.Params,
    test_graphs: Sequence[HeldOutSystem],
    trials: int = 5,
) -> float:
    """Mean seconds a graph: all decisions of a study of `trials` trials, warm."""
    surrogate = NetworkSurrogate(TrainedModel("model", model, params, {}))
    return float(
        np.mean([amortized_study(s, surrogate, trials, s.number).seconds for s in test_graphs])
    )


def measure_parent_scale_performance(
    test_graphs: Sequence[HeldOutSystem], trials: int = 5
) -> float:
    """The same for PARENT_SCALE, its better option."""
    return float(np.mean([expert_study(s, trials, s.number).seconds for s in test_graphs]))


def _plain(value: Any) -> Any:
    """JSON values; a number that is not finite is null, which JSON knows."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value


def _trained(
    model: str | Path | Network | None, params: hk.Params | None, card: Mapping[str, Any]
) -> TrainedModel:
    if model is None or isinstance(model, str | Path):
        if params is not None:
            raise ConfigError("weights were given without the network that they belong to")
        return load_pretrained(model or DEFAULT_MODEL)
    if params is None:
        raise ConfigError("a network was given without weights")
    return TrainedModel("model", model, params, card)
