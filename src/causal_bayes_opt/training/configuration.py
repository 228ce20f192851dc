"""A training run as a file: the network, what it is trained on, and how long."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from causal_bayes_opt.core.random_systems import SystemDistribution
from causal_bayes_opt.errors import ConfigError, nearest
from causal_bayes_opt.surrogate.predictor import AmortizedModel, PredictorConfig
from causal_bayes_opt.surrogate.support import measure_support
from causal_bayes_opt.surrogate.training import DesignDistribution, TrainingDistribution
from causal_bayes_opt.training.loop import LoopConfig

T = TypeVar("T")


@dataclass(frozen=True)
class TrainingRun:
    """All that a run needs; `read_run` makes it from a file.

    Attributes:
        name: of the model that it makes.
        model: the network.
        distribution: what it is trained on.
        loop: how long and how fast.
        start: a model (name or path of its header) whose weights it begins with.
    """

    name: str
    model: AmortizedModel
    distribution: TrainingDistribution
    loop: LoopConfig
    start: str | None = None


def read_run(path: str | Path) -> TrainingRun:
    """Read a run from a JSON file with the keys name, network, systems, design, loop and start.

    Raises:
        ConfigError: the file is missing or no JSON, or has an unknown key or an impossible value;
            the message names the key, and the nearest one that exists.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"no such configuration: {str(path)!r}") from error
    except json.JSONDecodeError as error:
        raise ConfigError(f"{str(path)!r} is no JSON: {error}") from error
    if not isinstance(data, Mapping):
        raise ConfigError(f"{str(path)!r} holds no JSON object")
    known = ("name", "network", "systems", "design", "loop", "start")
    _refuse_unknown(data, known, "the configuration")
    systems = tuple(_build(SystemDistribution, part, "systems") for part in data["systems"])
    return TrainingRun(
        name=str(data.get("name", Path(path).stem)),
        model=AmortizedModel(_build(PredictorConfig, data.get("network", {}), "network")),
        distribution=TrainingDistribution(
            systems, _build(DesignDistribution, data.get("design", {}), "design")
        ),
        loop=_build(LoopConfig, data.get("loop", {}), "loop"),
        start=data.get("start"),
    )


def model_card(run: TrainingRun, seconds: float) -> dict[str, Any]:
    """What a model says of itself: its training distribution, and the ranges it covers.

    The ranges are those of `surrogate.support`, measured on systems simulated for that.
    """
    described: dict[str, Any] = json.loads(
        json.dumps(
            {
                "systems": [dataclasses.asdict(part) for part in run.distribution.systems],
                "design": dataclasses.asdict(run.distribution.design),
                "loop": dataclasses.asdict(run.loop),
            }
        )
    )
    return {
        "trained_on": measure_support(run.distribution),
        "training_seconds": round(seconds, 1),
        **described,
    }


def _build(kind: type[T], data: Any, where: str) -> T:
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where} must be a JSON object, not {data!r}")
    fields = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    _refuse_unknown(data, fields, where)
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in data.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from error


def _refuse_unknown(data: Mapping[str, Any], known: Any, where: str) -> None:
    for key in data:
        if key not in known:
            raise ConfigError(f"unknown key {key!r} in {where}{nearest(key, known)}")
