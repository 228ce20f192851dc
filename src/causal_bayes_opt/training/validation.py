"""The judge: is the amortized model worth it? Evidence, criteria, verdicts, one report."""

from __future__ import annotations

import json
import platform
import tempfile
from collections.abc import Callable, Sequence
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
from causal_bayes_opt.training import criteria as rules
from causal_bayes_opt.training import evidence
from causal_bayes_opt.training.cost_benefit import break_even, costs_of
from causal_bayes_opt.training.criteria import (
    Criterion,
    Measured,
    ValidationCriteria,
    Verdict,
)
from causal_bayes_opt.training.held_out import (
    HeldOut,
    HeldOutSystem,
    describe,
    digest_of_systems,
    generate_test_graphs,
    overlap_with_training,
)
from causal_bayes_opt.training.quality import (
    Answers,
    agreement,
    by_factor,
    quality_table,
    reliability,
)
from causal_bayes_opt.training.scaling_gate import REPORT_FORMAT, content_digest
from causal_bayes_opt.training.scaling_study import ScalingStudy, measure_scaling
from causal_bayes_opt.training.transfer import conditions, measure_transfer, size_drop

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

RECORDED_SECONDS = 85.0  # one run of the public code: 4 variables, 100 rows, 5 trials, one core
_FEWEST = 20  # systems; fewer decide nothing about quality
_PERMUTED = 10


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
    transfer_systems: int = 100
    transfer_sizes: tuple[tuple[int, ...], ...] = ((9, 10, 11, 12), (14, 16, 18, 20))
    scaling: ScalingStudy | None = field(default_factory=ScalingStudy)

    def __post_init__(self) -> None:
        if min(self.systems, self.trials, self.resamples) < 1:
            raise ConfigError("systems, trials and resamples must be at least 1")


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
    folder: Path | None = None,
    report: Callable[[str], None] | None = None,
) -> ValidationReport:
    """Judge a model against the expert, exact inference and the truth on systems it never saw.

    Args:
        model: name or path of a saved one, or a network whose weights are `params`; None: the
            shipped linear one.
        params: weights, for a network.
        config: see the class.
        folder: keeps demonstrations and runs of the scaling study; None: a temporary one.
        report: called with a sentence after each part.

    Raises:
        ModelError: no such model.
        ConfigError: a network without weights, or weights without a network.
    """
    trained = _trained(model, params)
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
    overlap = overlap_with_training(config.held_out, config.systems, card)
    tell(f"{len(systems)} systems")
    answers = _all_answers(surrogate, systems)
    tell("answers")
    quality = _quality(answers, systems, config)
    tell("quality")
    speed = _speed(surrogate, systems, config)
    tell("speed")
    failed = any(answer.failed for answer in answers["amortized"])
    order = None if failed else evidence.order_change(surrogate, systems[:_PERMUTED])
    resources = {
        "peak_bytes": memory or {},
        "device_bytes": evidence.device_memory(),
        "device": str(jax.devices()[0]),
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "failures": _failures(answers["amortized"], speed),
        "order_change": order,
        "overlap": overlap,
    }
    expert_s, amortized_s = (np.array(speed["seconds"][who]) for who in ("expert", "amortized"))
    costs = costs_of(card, config.price_per_hour)
    cost = break_even(costs, expert_s, amortized_s, config.resamples, config.criteria.confidence)
    transfer = _transfer(surrogate, answers, config, card, tell)
    scaling = None
    if config.scaling is not None:
        if folder is None:
            raise ConfigError("the scaling study needs a folder")
        scaling = measure_scaling(
            config.scaling,
            systems,
            folder,
            config.resamples,
            config.criteria.confidence,
            tell,
        )
    week_2 = _week_2(config, quality, speed, resources)
    week_4 = _week_4(config, transfer, scaling, speed, cost)
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
            "week_2": rules.all_hold(week_2).value,
            "week_4": rules.most_hold(week_4).value,
        },
        "week_2": [criterion.to_json() for criterion in week_2],
        "no_go_indicators": [c.to_json() for c in _no_go(config, quality, speed, resources)],
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
        np.mean(
            [evidence.amortized_study(s, surrogate, trials, s.number).seconds for s in test_graphs]
        )
    )


def measure_parent_scale_performance(
    test_graphs: Sequence[HeldOutSystem], trials: int = 5
) -> float:
    """The same for PARENT_SCALE, its better option."""
    return float(np.mean([evidence.expert_study(s, trials, s.number).seconds for s in test_graphs]))


def _plain(value: Any) -> Any:
    """JSON values; a number that is not finite is null, which JSON knows."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value


def _trained(model: str | Path | Network | None, params: hk.Params | None) -> TrainedModel:
    if model is None or isinstance(model, str | Path):
        if params is not None:
            raise ConfigError("weights were given without the network that they belong to")
        return load_pretrained(model or DEFAULT_MODEL)
    if params is None:
        raise ConfigError("a network was given without weights")
    return TrainedModel("model", model, params, {})


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
        **table,
        "by_factor": by_factor(answers, factors, config.resamples, level),
        "reliability": {method: reliability(own) for method, own in answers.items()},
        "agreement_with_expert_nats": agreement(answers["amortized"], answers["expert"]),
    }


def _speed(
    surrogate: Surrogate, systems: Sequence[HeldOutSystem], config: ValidationConfig
) -> dict[str, Any]:
    chosen = systems[: config.studies]
    trials, level = config.trials, config.criteria.confidence
    found = {
        "amortized": [evidence.amortized_study(s, surrogate, trials, s.number) for s in chosen],
        "expert": [evidence.expert_study(s, trials, s.number) for s in chosen],
        "exact": [evidence.amortized_study(s, exact_posterior, trials, s.number) for s in chosen],
    }
    seconds = {method: np.array([s.seconds for s in own]) for method, own in found.items()}
    failures = {method: [s.failed for s in own if s.failed] for method, own in found.items()}
    ratio = seconds["expert"] / seconds["amortized"]
    done = [i for i in range(len(chosen)) if not (found["amortized"][i].failed)]
    faster = int((ratio[done] >= config.criteria.min_speedup).sum())
    best = {method: [s.best for s in own] for method, own in found.items()}
    rng = np.random.default_rng(0)
    draws = rng.integers(len(ratio), size=(config.resamples, len(ratio)))
    tail = (1 - level) / 2
    ends = np.quantile(np.median(ratio[draws], axis=1), (tail, 1 - tail))
    return {
        "trials": trials,
        "systems": len(chosen),
        "seconds": {method: own.tolist() for method, own in seconds.items()},
        "mean_seconds": {method: float(own.mean()) for method, own in seconds.items()},
        "ratio": ratio.tolist(),
        "median_ratio": asdict(Measured(float(np.median(ratio)), *map(float, ends))),
        "share_faster": asdict(Measured.share(faster, len(chosen), level)),
        "ratio_to_exact": float(np.median(seconds["exact"] / seconds["amortized"])),
        "recorded_public_seconds": RECORDED_SECONDS,
        "ratio_to_recorded": RECORDED_SECONDS / float(seconds["amortized"].mean()),
        "failures": failures,
        "no_worse_than_expert": _no_worse(best["amortized"], best["expert"], level),
    }


def _no_worse(ours: Sequence[float], expert: Sequence[float], level: float) -> dict[str, Any]:
    """Share of studies whose best trial is no worse than the expert's, by the true mean."""
    pairs = [(a, b) for a, b in zip(ours, expert, strict=True) if np.isfinite(a + b)]
    hits = sum(a <= b + 1e-3 * abs(b) for a, b in pairs)
    return asdict(Measured.share(hits, len(pairs), level))


def _failures(answers: Sequence[Any], speed: dict[str, Any]) -> list[str]:
    studies: list[str] = speed["failures"]["amortized"]
    return [answer.failed for answer in answers if answer.failed] + studies


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


def _week_2(
    config: ValidationConfig,
    quality: dict[str, Any],
    speed: dict[str, Any],
    resources: dict[str, Any],
) -> list[Criterion]:
    asked = config.criteria
    found = [
        rules.at_least(
            f"share of graphs with a speed-up of {asked.min_speedup:g}",
            asked.min_share,
            Measured(**speed["share_faster"]),
            f"median {speed['median_ratio']['value']:.1f}",
        )
    ]
    for name in ("f1", "average_precision"):
        drop, note = _drop_of(config, quality, name)
        found.append(
            rules.below(f"drop of {_told(name)} below the expert", asked.max_drop, drop, note)
        )
    failures, order = resources["failures"], resources["order_change"]
    found.append(
        rules.at_most(
            "failures",
            asked.max_failures,
            Measured.exactly(len(failures)),
            failures[0] if failures else "",
        )
    )
    found.append(
        rules.at_most(
            "change of a probability with the order of the variables",
            asked.max_order_change,
            None if order is None else Measured.exactly(order),
            "not measured, as not all questions were answered" if order is None else "",
        )
    )
    shared = resources["overlap"]["shared"]
    found.append(
        rules.at_most(
            "held-out systems that were trained on",
            0,
            Measured.exactly(shared),
            f"compared with {resources['overlap']['training']} keys of training steps",
        )
    )
    found.append(_memory(config, resources))
    return found


def _no_go(
    config: ValidationConfig,
    quality: dict[str, Any],
    speed: dict[str, Any],
    resources: dict[str, Any],
) -> list[Criterion]:
    """Indicators against going on: each is a criterion whose no-go is the bad news."""
    asked = config.criteria
    found = [
        rules.at_least("median speed-up", asked.no_go_speedup, Measured(**speed["median_ratio"]))
    ]
    for name in ("f1", "average_precision"):
        drop, note = _drop_of(config, quality, name)
        found.append(
            rules.at_most(f"drop of {_told(name)} below the expert", asked.no_go_drop, drop, note)
        )
    return [*found, _memory(config, resources)]


def _memory(config: ValidationConfig, resources: dict[str, Any]) -> Criterion:
    most = config.criteria.max_memory or resources["device_bytes"]
    peaks = resources["peak_bytes"]
    if not peaks:
        return rules.at_most("peak memory, bytes", most, None, "not measured")
    measured = None if min(peaks.values()) < 0 else Measured.exactly(max(peaks.values()))
    told = ", ".join(f"{name} {value / 2**20:.0f} MiB" for name, value in peaks.items())
    return rules.at_most("peak memory, bytes", most, measured, told)


def _drop_of(
    config: ValidationConfig, quality: dict[str, Any], name: str
) -> tuple[Measured | None, str]:
    measured = Measured(**quality["drops"]["expert"][name])
    if config.systems < _FEWEST:
        return None, f"{config.systems} systems decide nothing; {_FEWEST} are the least"
    return measured, f"measured on {config.systems} systems"


def _week_4(
    config: ValidationConfig,
    transfer: list[dict[str, Any]] | None,
    scaling: dict[str, Any] | None,
    speed: dict[str, Any],
    cost: dict[str, Any],
) -> list[Criterion]:
    asked = config.criteria
    larger = None if transfer is None else size_drop(transfer)
    breaks = [entry["condition"] for entry in transfer or () if entry["breaks"]]
    told = f"breaks on: {', '.join(breaks)}" if breaks else "breaks nowhere"
    gain = None if scaling is None else Measured(**scaling["gain"])
    failed = len(speed["failures"]["amortized"])
    return [
        rules.below(
            "drop of average precision on larger systems",
            asked.max_transfer_drop,
            None if larger is None else larger[1],
            "not measured" if larger is None else f"{larger[0]}; {told}",
        ),
        rules.below(
            "nats on the true set, more demonstrations less fewer",
            0.0,
            gain,
            "not measured" if scaling is None else f"{scaling['compared']} demonstrations",
        ),
        rules.at_most(
            "studies that did not end",
            0,
            Measured.exactly(failed),
            f"{speed['systems']} studies of {speed['trials']} trials",
        ),
        rules.at_most(
            "graphs after which training has paid",
            asked.max_break_even,
            Measured(**cost["break_even"]),
            f"{cost['seconds']:.0f} s spent, {cost['saved_seconds_per_graph']:.3f} s saved a graph",
        ),
    ]


def _told(name: str) -> str:
    return name.upper() if name == "f1" else name.replace("_", " ")
