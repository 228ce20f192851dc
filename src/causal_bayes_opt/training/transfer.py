"""Transfer: what was not in the training, one factor at a time and together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from causal_bayes_opt.surrogate.protocol import Surrogate
from causal_bayes_opt.training.criteria import Measured, ValidationCriteria
from causal_bayes_opt.training.evidence import ask
from causal_bayes_opt.training.held_out import HeldOut, generate_test_graphs
from causal_bayes_opt.training.quality import Answer, quality_table, relative_drop


@dataclass(frozen=True)
class Condition:
    """What changes against the base, and whether it is outside of the model's training."""

    name: str
    config: HeldOut
    unseen: bool


def conditions(
    base: HeldOut, sizes: Sequence[tuple[int, ...]], trained: Mapping[str, Any]
) -> list[Condition]:
    """Other sizes, graphs, mechanisms and noise, one at a time; then the first of all together.

    Args:
        base: what the model is judged on elsewhere.
        sizes: groups of numbers of variables.
        trained: ``n_vars`` (largest), ``mechanisms`` and ``noises`` of the training.
    """
    found = []
    largest = trained.get("n_vars", max(base.graph_sizes))
    for group in sizes:
        name = f"{group[0]} to {group[-1]} variables" if len(group) > 1 else f"{group[0]} variables"
        found.append(Condition(name, replace(base, graph_sizes=group), max(group) > largest))
    # The training draws its graphs edge by edge: every other family is new to it.
    for family in ("scale_free", "small_world", "chain", "star"):
        found.append(Condition(f"{family} graphs", replace(base, graph_families=(family,)), True))
    for mechanism in ("polynomial", "sigmoid", "neural"):
        found.append(
            Condition(
                f"{mechanism} mechanisms",
                replace(base, mechanisms=(mechanism,)),
                mechanism not in trained.get("mechanisms", base.mechanisms),
            )
        )
    for noise in ("laplace", "uniform", "student"):
        found.append(
            Condition(
                f"{noise} noise",
                replace(base, noises=(noise,)),
                noise not in trained.get("noises", base.noises),
            )
        )
    together = replace(
        base,
        graph_sizes=sizes[0],
        graph_families=("scale_free",),
        mechanisms=("polynomial",),
        noises=("laplace",),
    )
    return [*found, Condition("size, graphs, mechanisms and noise together", together, True)]


def measure_transfer(
    surrogate: Surrogate,
    base: Sequence[Answer],
    asked: Sequence[Condition],
    systems: int,
    criteria: ValidationCriteria,
    resamples: int,
    report: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Quality under each condition, its drop from the base, and whether it breaks there.

    It breaks where the whole interval of the drop of average precision is above the threshold.
    """
    found = []
    for condition in asked:
        drawn = generate_test_graphs(systems, config=condition.config)
        answers = ask(surrogate, drawn)
        drop = relative_drop(base, answers, resamples, criteria.confidence)
        table = quality_table({"amortized": answers}, resamples, criteria.confidence)
        found.append(
            {
                "condition": condition.name,
                "unseen": condition.unseen,
                "systems": systems,
                "quality": table["methods"]["amortized"],
                "drop": asdict(drop),
                "breaks": drop.low > criteria.max_transfer_drop,
                "failures": sum(bool(answer.failed) for answer in answers),
            }
        )
        if report is not None:
            report(condition.name)
    return found


def size_drop(found: Sequence[Mapping[str, Any]]) -> tuple[str, Measured] | None:
    """The condition of the smallest systems that are larger than those of the training."""
    for entry in found:
        if entry["unseen"] and entry["condition"].endswith("variables"):
            return str(entry["condition"]), Measured(**entry["drop"])
    return None
