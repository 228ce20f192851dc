"""A training run as a file: the network, what it is trained on, and how long."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

from causal_bayes_opt.acquisition.grpo import GRPOConfig
from causal_bayes_opt.acquisition.policy_network import PolicyConfig
from causal_bayes_opt.acquisition.rewards import RewardWeights
from causal_bayes_opt.core.random_systems import SystemDistribution
from causal_bayes_opt.errors import ConfigError, check_name, nearest
from causal_bayes_opt.surrogate.avici_adapter import AxialConfig
from causal_bayes_opt.surrogate.joint import Network
from causal_bayes_opt.surrogate.network import load_pretrained, make_network
from causal_bayes_opt.surrogate.predictor import PredictorConfig
from causal_bayes_opt.surrogate.support import measure_support
from causal_bayes_opt.surrogate.training import DesignDistribution, TrainingDistribution
from causal_bayes_opt.training.loop_config import LoopConfig
from causal_bayes_opt.training.policy_starts import StartDistribution
from causal_bayes_opt.training.policy_training import PolicyRun

T = TypeVar("T")
_MIXTURE = ("systems", "shares", "design")
_KEYS = ("name", "architecture", "network", *_MIXTURE, "loop", "start", "stages")
_SIZES = {"pairs": PredictorConfig, "rows": AxialConfig}


@dataclass(frozen=True)
class Stage:
    """What is learned before the run's own distribution.

    Attributes:
        distribution: the simpler systems.
        steps: most steps; their schedule is the stage's own.
        promote_at: the stage ends when the loss on systems held out falls to this, in nats a
            variable; None: after its steps.
    """

    distribution: TrainingDistribution
    steps: int
    promote_at: float | None = None


@dataclass(frozen=True)
class TrainingRun:
    """All that a run needs; `read_run` makes it from a file.

    Attributes:
        name: of the model that it makes.
        model: the network.
        distribution: what it is trained on.
        loop: how long and how fast.
        start: a model (name or path of its header) whose weights it begins with.
        stages: a curriculum that comes first.
    """

    name: str
    model: Network
    distribution: TrainingDistribution
    loop: LoopConfig
    start: str | None = None
    stages: tuple[Stage, ...] = ()


def read_run(path: str | Path) -> TrainingRun:
    """Read a run from a JSON file.

    Its keys are name, architecture ("pairs", or "rows" for the axial model), network, systems,
    shares, design, loop, start and stages; a stage has systems, shares, design (that of the run
    where left out), steps and promote_at.

    Raises:
        ConfigError: the file is missing or no JSON, or has an unknown key or an impossible value;
            the message names the key, and the nearest one that exists.
    """
    data = _read(path)
    _refuse_unknown(data, _KEYS, "the configuration")
    architecture = data.get("architecture", "pairs")
    check_name(architecture, _SIZES, "architecture")
    start, stages = data.get("start"), data.get("stages", ())
    if not (start is None or isinstance(start, str)):
        raise ConfigError(f"start must be the name or path of a model, not {start!r}")
    if not isinstance(stages, list | tuple):
        raise ConfigError(f"stages must be a list of JSON objects, not {stages!r}")
    size: Any = _build(_SIZES[architecture], data.get("network", {}), "network")
    return TrainingRun(
        name=str(data.get("name", Path(path).stem)),
        model=make_network(architecture, dataclasses.asdict(size)),
        distribution=_distribution(data, {}, "the configuration"),
        loop=_build(LoopConfig, data.get("loop", {}), "loop"),
        start=start,
        stages=tuple(_stage(part, data) for part in stages),
    )


def read_policy_run(path: str | Path) -> PolicyRun:
    """Read a run that trains a policy from a JSON file.

    Its keys are name, network, starts (with systems), n_starts, grpo (with rewards), imitation and
    loop.

    Raises:
        ConfigError: see `read_run`.
    """
    data = dict(_read(path))
    _refuse_unknown(data, [f.name for f in dataclasses.fields(PolicyRun)], "the configuration")
    starts, grpo = (_object(data.get(key, {}), key) for key in ("starts", "grpo"))
    n_starts = data.get("n_starts", PolicyRun.n_starts)
    _refuse_other_numbers("n_starts", n_starts, "int", "the configuration")
    if "systems" in starts:
        starts["systems"] = _build(SystemDistribution, starts["systems"], "systems")
    if "rewards" in grpo:
        grpo["rewards"] = _build(RewardWeights, grpo["rewards"], "rewards")
    imitation = data.get("imitation")
    return PolicyRun(
        name=str(data.get("name", Path(path).stem)),
        network=_build(PolicyConfig, data.get("network", {}), "network"),
        starts=_build(StartDistribution, starts, "starts"),
        n_starts=n_starts,
        grpo=_build(GRPOConfig, grpo, "grpo"),
        imitation=None if imitation is None else _build(LoopConfig, imitation, "imitation"),
        loop=_build(LoopConfig, data.get("loop", {}), "loop"),
    )


def _read(path: str | Path) -> Mapping[str, Any]:
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"no such configuration: {str(path)!r}") from error
    except json.JSONDecodeError as error:
        raise ConfigError(f"{str(path)!r} is no JSON: {error}") from error
    if not isinstance(data, Mapping):
        raise ConfigError(f"{str(path)!r} holds no JSON object")
    return data


def _stage(data: Any, run: Mapping[str, Any]) -> Stage:
    data = _object(data, "a stage")
    _refuse_unknown(data, (*_MIXTURE, "steps", "promote_at"), "a stage")
    _refuse_other_numbers("promote_at", data.get("promote_at"), "float | None", "a stage")
    _refuse_other_numbers("steps", data.get("steps"), "int", "a stage")
    if data["steps"] < 1:
        raise ConfigError("a stage needs steps, a number of at least 1")
    return Stage(_distribution(data, run, "a stage"), data["steps"], data.get("promote_at"))


def _distribution(
    data: Mapping[str, Any], fallback: Mapping[str, Any], where: str
) -> TrainingDistribution:
    if not data.get("systems"):
        raise ConfigError(f"{where} needs systems, a list of one or more")
    systems = tuple(_build(SystemDistribution, part, "systems") for part in data["systems"])
    design = data.get("design", fallback.get("design", {}))
    shares = data.get("shares") or ()
    if not isinstance(shares, list | tuple) or not all(
        isinstance(share, int | float) for share in shares
    ):
        raise ConfigError(f"shares of {where} must be a list of numbers, not {shares!r}")
    return TrainingDistribution(
        systems, _build(DesignDistribution, design, "design"), tuple(shares)
    )


def distribution_of(card: Mapping[str, Any]) -> TrainingDistribution:
    """What a model was trained on, from its card.

    Raises:
        ConfigError: the card names no systems, or unknown ones.
    """
    return _distribution(card, {}, "the model's card")


def model_card(run: TrainingRun, seconds: float) -> dict[str, Any]:
    """What a model says of itself: its training distribution, and the ranges it covers.

    Its seconds of training include those of the model that the run began with.
    The ranges are those of `surrogate.support`, measured on systems simulated for that.
    """
    described: dict[str, Any] = json.loads(
        json.dumps(
            {
                "systems": [dataclasses.asdict(part) for part in run.distribution.systems],
                "shares": run.distribution.shares,
                "design": dataclasses.asdict(run.distribution.design),
                "loop": dataclasses.asdict(run.loop),
                "stages": [dataclasses.asdict(stage) for stage in run.stages],
                "start": None if run.start is None else _history(run.start),
            }
        )
    )
    before = (described["start"] or {}).get("training_seconds", 0.0)
    return {
        "trained_on": measure_support(run.distribution),
        "training_seconds": round(seconds + before, 1),
        **described,
    }


def _history(start: str) -> dict[str, Any]:
    """What the model that a run begins with was trained on, for the card."""
    trained = load_pretrained(start)
    kept = ("training_seconds", *_MIXTURE, "loop", "stages", "start")
    return {"name": trained.name, **{key: trained.card[key] for key in kept if key in trained.card}}


def _build(kind: type[T], data: Any, where: str) -> T:
    data = _object(data, where)
    types = {field.name: str(field.type) for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    _refuse_unknown(data, types, where)
    for key, value in data.items():
        _refuse_other_numbers(key, value, types[key], where)
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in data.items()}
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error


def _object(data: Any, where: str) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where} must be a JSON object, not {data!r}")
    return dict(data)


def _refuse_other_numbers(key: str, value: Any, wanted: str, where: str) -> None:
    """Where a field's annotation asks for a number, or one or None, take nothing else."""
    kind = {"int": Integral, "float": Real}.get(wanted.removesuffix(" | None"))
    if kind is None or (value is None and wanted.endswith(" | None")):
        return
    if isinstance(value, bool) or not isinstance(value, kind):
        told = "a whole number" if kind is Integral else "a number"
        raise ConfigError(f"{where}: {key} must be {told}, not {value!r}")


def _refuse_unknown(data: Mapping[str, Any], known: Any, where: str) -> None:
    for key in data:
        if key not in known:
            raise ConfigError(f"unknown key {key!r} in {where}{nearest(key, known)}")
