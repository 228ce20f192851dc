"""The judge: is the amortized model worth it? Evidence, criteria, verdicts, one report."""

from __future__ import annotations

import json
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import haiku as hk
import jax
import numpy as np

from causal_bayes_opt.errors import ConfigError
from causal_bayes_opt.surrogate.exact import MAX_UNCAPPED, exact_posterior
from causal_bayes_opt.surrogate.network import (
    DEFAULT_MODEL,
    NetworkSurrogate,
    TrainedModel,
    load_pretrained,
    model_digest,
    save_model,
)
from causal_bayes_opt.surrogate.predictor import Network
from causal_bayes_opt.surrogate.protocol import Surrogate
from causal_bayes_opt.training import evidence, verdicts
from causal_bayes_opt.training.cost_benefit import Costs, break_even, costs_of
from causal_bayes_opt.training.criteria import ValidationCriteria, Verdict, all_hold, most_hold
from causal_bayes_opt.training.held_out import (
    HeldOut,
    HeldOutSystem,
    describe,
    digest_of_systems,
    generate_test_graphs,
    seeds_of,
)
from causal_bayes_opt.training.overlap import overlap_with_training
from causal_bayes_opt.training.quality import (
    Answers,
    agreement,
    by_factor,
    quality_table,
    reliability,
)
from causal_bayes_opt.training.scaling_gate import REPORT_FORMAT, content_digest
from causal_bayes_opt.training.scaling_study import ScalingStudy, measure_scaling
from causal_bayes_opt.training.speed import amortized_study, expert_study, measure_speed
from causal_bayes_opt.training.transfer import conditions, measure_transfer

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

_PERMUTED = 10  # systems whose variables are put into another order


@dataclass(frozen=True)
class ValidationConfig:
    """What is judged, on what, and by which thresholds.

    Attributes:
        systems: held-out systems.
        trials: of each study that is timed.
        studies: how many of the systems get a study; None: all.
        held_out: what they are like.
        criteria: thresholds.
        resamples: of every bootstrap.
        price_per_hour: money for an hour of this machine.
        spent: seconds that the model took, by the names of `cost_benefit.COSTS`; they count
            before those of its card.
        overlap_steps: of the training, whose systems are drawn again and compared.
        transfer_systems: for each condition of the transfer; 0 leaves transfer out.
        transfer_sizes: numbers of variables beyond those of `held_out`.
        scaling: the study of more demonstrations; None leaves it out.
    """

    systems: int = 200
    trials: int = 5
    studies: int | None = None
    held_out: HeldOut = field(default_factory=HeldOut)
    criteria: ValidationCriteria = field(default_factory=ValidationCriteria)
    resamples: int = 500
    price_per_hour: float = 0.5
    spent: Mapping[str, float] = field(default_factory=dict)
    overlap_steps: int = 300
    transfer_systems: int = 100
    transfer_sizes: tuple[tuple[int, ...], ...] = ((9, 10, 11, 12), (14, 16, 18, 20), (30, 40, 50))
    scaling: ScalingStudy | None = field(default_factory=ScalingStudy)

    def __post_init__(self) -> None:
        for name in ("systems", "trials", "studies", "resamples", "overlap_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1")
        if self.transfer_systems < 0:
            raise ConfigError(f"transfer_systems is {self.transfer_systems}; 0 is the least")


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
    """
    tell = report or (lambda sentence: None)
    card = card or {}
    systems = generate_test_graphs(config.systems, config=config.held_out)
    costs = costs_of(card, config.price_per_hour, config.spent)
    tell(f"{len(systems)} systems")
    overlap = overlap_with_training(
        [system.scm for system in systems],
        seeds_of(config.held_out, config.systems),
        card,
        config.overlap_steps,
    )
    tell(f"compared with {overlap['systems']} systems of the training")
    answers = _all_answers(surrogate, systems)
    tell("answers")
    quality = _quality(answers, systems, config)
    tell("quality")
    chosen = systems[: config.studies]
    speed = measure_speed(
        surrogate,
        chosen,
        config.trials,
        config.criteria,
        config.resamples,
        lambda done: tell(f"{done} of {len(chosen)} graphs timed"),
    )
    resources = _resources(surrogate, systems, answers["amortized"], speed, memory, overlap)
    cost = _cost(costs, speed, config)
    # Each part compiles its own programs, and Linux ends a process with 65,530 memory maps.
    jax.clear_caches()
    transfer = _transfer(surrogate, answers, config, card, tell)
    jax.clear_caches()
    scaling = _scaling(config, systems, folder, tell)
    measured = quality, speed, resources
    week_2 = verdicts.week_2(config.criteria, *measured)
    week_4 = verdicts.week_4(config.criteria, transfer, scaling, speed, cost)
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
        "quality": quality,
        "speed": speed,
        "resources": resources,
        "cost": cost,
        "transfer": transfer,
        "scaling": scaling,
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


def _all_answers(surrogate: Surrogate, systems: Sequence[HeldOutSystem]) -> Answers:
    small = [s for s in systems if len(s.scm.variables) <= MAX_UNCAPPED]
    answers = {
        "amortized": evidence.ask(surrogate, systems),
        "expert": evidence.ask_expert(systems),
    }
    if len(small) == len(systems):
        answers["exact"] = evidence.ask(exact_posterior, systems)
    return answers


def _quality(
    answers: Answers, systems: Sequence[HeldOutSystem], config: ValidationConfig
) -> dict[str, Any]:
    level = config.criteria.confidence
    table = quality_table(answers, config.resamples, level)
    factors = [
        {**system.factors, "parents": min(system.factors["parents"], 3)} for system in systems
    ]
    return {
        "systems": len(systems),
        **table,
        "by_factor": by_factor(answers, factors, config.resamples, level),
        "reliability": {method: reliability(own) for method, own in answers.items()},
        "agreement_with_expert_nats": agreement(answers["amortized"], answers["expert"]),
    }


def _cost(costs: Costs, speed: dict[str, Any], config: ValidationConfig) -> dict[str, Any]:
    """Against whichever option of the expert took less time on these graphs."""
    fastest = min(("expert", "expert_votes"), key=lambda method: speed["mean_seconds"][method])
    expert_s, amortized_s = (np.array(speed["seconds"][who]) for who in (fastest, "amortized"))
    found = break_even(costs, expert_s, amortized_s, config.resamples, config.criteria.confidence)
    return {"against": fastest, **found}


def _failures(answers: Sequence[Any], speed: dict[str, Any]) -> list[str]:
    studies: list[str] = speed["failures"]["amortized"]
    return [answer.failed for answer in answers if answer.failed] + studies


def _resources(
    surrogate: Surrogate,
    systems: Sequence[HeldOutSystem],
    answers: Sequence[Any],
    speed: dict[str, Any],
    memory: dict[str, int] | None,
    overlap: dict[str, Any],
) -> dict[str, Any]:
    """What it took, and what speaks against the answers themselves."""
    failed = any(answer.failed for answer in answers)
    return {
        "peak_bytes": memory or {},
        "device_bytes": evidence.device_memory(),
        "device": str(jax.devices()[0]),
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "failures": _failures(answers, speed),
        "order_change": None if failed else evidence.order_change(surrogate, systems[:_PERMUTED]),
        "overlap": overlap,
    }


def _scaling(
    config: ValidationConfig,
    systems: Sequence[HeldOutSystem],
    folder: Path | None,
    tell: Callable[[str], None],
) -> dict[str, Any] | None:
    if config.scaling is None:
        return None
    if folder is None:
        raise ConfigError("the scaling study needs a folder")
    return measure_scaling(
        config.scaling,
        config.held_out,
        systems,
        folder,
        config.resamples,
        config.criteria.confidence,
        tell,
    )


def _transfer(
    surrogate: Surrogate,
    answers: Answers,
    config: ValidationConfig,
    card: Any,
    tell: Callable[[str], None],
) -> list[dict[str, Any]] | None:
    if config.transfer_systems < 1:
        return None
    trained: dict[str, Any] = {}
    if "systems" in card:
        trained = {
            "n_vars": max(part["n_vars"][1] for part in card["systems"]),
            "mechanisms": {m for part in card["systems"] for m in part["mechanisms"]},
            "noises": {m for part in card["systems"] for m in part["noises"]},
        }
    asked = conditions(config.held_out, config.transfer_sizes, trained)
    return measure_transfer(
        surrogate,
        answers["amortized"],
        asked,
        config.transfer_systems,
        config.criteria,
        config.resamples,
        tell,
    )
