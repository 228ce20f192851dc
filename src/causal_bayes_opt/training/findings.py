"""All that the judge measures of a surrogate, before any verdict."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from causal_bayes_opt.surrogate.exact import MAX_UNCAPPED, exact_posterior
from causal_bayes_opt.surrogate.protocol import Surrogate
from causal_bayes_opt.training import evidence
from causal_bayes_opt.training.cost_benefit import Costs, break_even, costs_of
from causal_bayes_opt.training.held_out import HeldOutSystem, seeds_of
from causal_bayes_opt.training.overlap import overlap_with_training
from causal_bayes_opt.training.quality import (
    Answers,
    agreement,
    by_factor,
    quality_table,
    reliability,
)
from causal_bayes_opt.training.scaling_study import measure_scaling
from causal_bayes_opt.training.speed import measure_speed
from causal_bayes_opt.training.transfer import conditions, measure_transfer
from causal_bayes_opt.training.validation_config import ValidationConfig

_PERMUTED = 10  # systems whose variables are put into another order


class Findings(NamedTuple):
    """The parts of a report, as JSON values but for numbers that are not finite."""

    quality: dict[str, Any]
    speed: dict[str, Any]
    resources: dict[str, Any]
    cost: dict[str, Any]
    transfer: list[dict[str, Any]] | None
    scaling: dict[str, Any] | None


def gather(
    surrogate: Surrogate,
    systems: Sequence[HeldOutSystem],
    config: ValidationConfig,
    *,
    card: Mapping[str, Any],
    memory: dict[str, int] | None,
    folder: Path | None,
    tell: Callable[[str], None],
) -> Findings:
    """Measure a surrogate on held-out systems; arguments as of `validation.judge`."""
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
    transfer = _transfer(surrogate, answers, config, card, tell)
    scaling = _scaling(config, systems, folder, tell)
    return Findings(quality, speed, resources, cost, transfer, scaling)


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
    if config.scaling is None or folder is None:
        return None
    jax.clear_caches()  # as before the transfer
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
    # Each part compiles its own programs, and Linux ends a process with 65,530 memory maps.
    jax.clear_caches()
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
