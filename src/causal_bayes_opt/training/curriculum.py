"""From small linear systems to large nonlinear ones: the same generator, stage by stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from causal_bayes_opt.core.random_systems import MECHANISM_FAMILIES
from causal_bayes_opt.errors import ConfigError, check_name
from causal_bayes_opt.surrogate.network import DEFAULT_MODEL
from causal_bayes_opt.training.data_generation import MinimalDatasetGenerator
from causal_bayes_opt.training.engines import Engine
from causal_bayes_opt.training.generation import Generated, generate_dataset
from causal_bayes_opt.training.scaling_gate import check_scaling_gate
from causal_bayes_opt.training.storage import DatasetStore


@dataclass(frozen=True)
class AdvancedCurriculumConfig:
    """Stages of growing systems.

    Attributes:
        node_progression: fewest and most variables of each stage.
        mechanism_progression: families of mechanisms of each stage.
        target_demonstrations: in all; the last stage takes what is left.
        demonstrations_per_stage: of each stage.
        generator: everything else.
    """

    node_progression: tuple[tuple[int, int], ...] = ((3, 8), (9, 15), (16, 25), (26, 50))
    mechanism_progression: tuple[tuple[str, ...], ...] = (
        ("linear",),
        ("linear", "polynomial"),
        ("linear", "polynomial", "sigmoid"),
        ("linear", "polynomial", "sigmoid", "neural"),
    )
    target_demonstrations: int = 50_000
    demonstrations_per_stage: int = 12_500
    generator: MinimalDatasetGenerator = field(
        default_factory=lambda: MinimalDatasetGenerator(teacher="truth")
    )

    def __post_init__(self) -> None:
        if len(self.node_progression) != len(self.mechanism_progression):
            raise ConfigError(
                f"{len(self.node_progression)} stages of sizes and "
                f"{len(self.mechanism_progression)} of mechanisms; expected as many"
            )
        if not self.node_progression:
            raise ConfigError("a curriculum needs at least one stage")
        for low, high in self.node_progression:
            if not 2 <= low <= high:
                raise ConfigError(
                    f"a stage of {low} to {high} variables; expected 2 <= low <= high"
                )
        for families in self.mechanism_progression:
            for name in families:
                check_name(name, MECHANISM_FAMILIES, "mechanism family")
        before = self.demonstrations_per_stage * (len(self.node_progression) - 1)
        if self.demonstrations_per_stage < 1 or self.target_demonstrations <= before:
            raise ConfigError(
                f"{self.target_demonstrations} demonstrations are too few for "
                f"{len(self.node_progression)} stages of {self.demonstrations_per_stage}"
            )

    def stage(self, number: int) -> MinimalDatasetGenerator:
        """The generator of a stage, counted from 0; each stage has a seed of its own."""
        if not 0 <= number < len(self.node_progression):
            raise ConfigError(f"stage {number}; there are {len(self.node_progression)}, from 0")
        low, high = self.node_progression[number]
        mechanisms = self.mechanism_progression[number]
        own = self.generator
        trials = own.demonstrations_per_graph if own.teacher == "parent_scale" else 1
        return replace(
            own,
            graph_sizes=tuple(range(low, high + 1)),
            seed=own.seed * len(self.node_progression) + number,
            systems=replace(own.systems, mechanisms=mechanisms),
            n_systems=-(-self._demonstrations(number) // trials),
        )

    def _demonstrations(self, number: int) -> int:
        if number + 1 < len(self.node_progression):
            return self.demonstrations_per_stage
        return self.target_demonstrations - self.demonstrations_per_stage * number


def generate_stage(
    curriculum: AdvancedCurriculumConfig,
    number: int,
    folder: str | Path,
    *,
    engine: Engine | None = None,
    report: Callable[[Generated], None] | None = None,
    validation_report: Path | None = None,
    model: str | Path = DEFAULT_MODEL,
    force: bool = False,
) -> DatasetStore:
    """Make the dataset of a stage in ``folder/stage-N``; every stage is behind the gate.

    Raises:
        GateError: the gate is closed.
    """
    generator = curriculum.stage(number)
    check_scaling_gate(validation_report, model=model, force=force)
    return generate_dataset(
        generator,
        Path(folder) / f"stage-{number}",
        engine=engine,
        report=report,
        validation_report=validation_report,
        model=model,
        force=force,
    )
