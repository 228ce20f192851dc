"""Do more demonstrations help? The same network on growing parts of one set of demonstrations."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax

from causal_bayes_opt.core.random_systems import SystemDistribution
from causal_bayes_opt.errors import ConfigError
from causal_bayes_opt.surrogate.network import NetworkSurrogate, TrainedModel
from causal_bayes_opt.training.amortized_models import (
    MinimalTrainingConfig,
    batches_an_epoch,
    train_amortized_model,
)
from causal_bayes_opt.training.data_generation import (
    MinimalDatasetGenerator,
    TrainingExample,
    extract_expert_demonstrations,
)
from causal_bayes_opt.training.evidence import ask
from causal_bayes_opt.training.generation import generate_dataset, plan_chunks
from causal_bayes_opt.training.held_out import HeldOut, HeldOutSystem
from causal_bayes_opt.training.overlap import fingerprint, system_numbers
from causal_bayes_opt.training.quality import quality_table
from causal_bayes_opt.training.records import RunRecords, to_runs
from causal_bayes_opt.training.speed import expert_for

_TRAINING = 0  # part of the generator


@dataclass(frozen=True)
class ScalingStudy:
    """What is compared.

    Attributes:
        demonstrations: numbers, rising; the criterion compares `compared`.
        compared: the two of them whose difference counts.
        steps: of each training; all see as many batches, so that only the data differ.
        seed: of the demonstrations, which are by the expert on systems like the held-out ones.
        training: of the network; its number of epochs follows from `steps`, and whether it looks
            beyond second moments from the mechanisms.
    """

    demonstrations: tuple[int, ...] = (250, 1000, 2500, 5000)
    compared: tuple[int, int] = (1000, 5000)
    steps: int = 600
    seed: int = 0
    training: MinimalTrainingConfig = field(
        default_factory=lambda: MinimalTrainingConfig(
            hidden_dim=48, num_layers=2, learning_rate=2e-3
        )
    )

    def __post_init__(self) -> None:
        if list(self.demonstrations) != sorted(set(self.demonstrations)):
            raise ConfigError(f"demonstrations is {self.demonstrations}; expected rising numbers")
        if not set(self.compared) <= set(self.demonstrations):
            raise ConfigError(
                f"compared is {self.compared}; both must be among {self.demonstrations}"
            )

    def generator(self, held_out: HeldOut) -> MinimalDatasetGenerator:
        """Of demonstrations on systems like the held-out ones, by the expert's better option."""
        options = expert_for(held_out.mechanisms)
        made = MinimalDatasetGenerator(
            graph_sizes=held_out.graph_sizes,
            graph_families=held_out.graph_families,
            mean_parents=held_out.mean_parents,
            systems=SystemDistribution(
                mechanisms=held_out.mechanisms, noises=held_out.noises, scaling=held_out.scaling
            ),
            expert={"mechanism": options.mechanism, "regressor": options.regressor},
            seed=self.seed,
        )
        return replace(made, n_systems=-(-self.demonstrations[-1] // made.demonstrations_per_graph))


def measure_scaling(
    study: ScalingStudy,
    held_out: HeldOut,
    systems: Sequence[HeldOutSystem],
    folder: Path,
    resamples: int,
    confidence: float,
    report: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Train on each number of demonstrations and judge all on the same held-out systems.

    Args:
        study: what is compared.
        held_out: what `systems` were drawn by.
        systems: to judge on.
        folder: keeps the demonstrations and the runs; the same call goes on from them.
        resamples: of the bootstrap.
        confidence: of the intervals.
        report: called with a sentence after each part.

    Returns:
        ``curve``, an entry for each number with ``demonstrations``, the ``steps`` of its training
        and the measures; ``gain``, the nats on the true set of the larger of the two compared less
        those of the smaller; ``shared_systems``, how many held-out ones are among the
        demonstrations. ``seconds`` are those of this call, without what the folder had.
    """
    tell = report or (lambda sentence: None)
    generator = study.generator(held_out)
    start = time.perf_counter()
    runs = runs_by_number(generator, folder / "demonstrations", tell)
    seconds = time.perf_counter() - start
    jax.clear_caches()  # of the demonstrations' programs: see `findings`
    answers, trainings = {}, []
    for count in study.demonstrations:
        # A run has a state before its first trial too; runs are kept whole.
        own = [e for run in runs[: count // generator.demonstrations_per_graph] for e in run]
        config = _training(study, held_out, own)
        start = time.perf_counter()
        model, params = train_amortized_model(own, config, folder / f"on-{count}")
        trainings.append(
            {
                "demonstrations": count,
                "steps": config.num_epochs * batches_an_epoch(own, config),
                "seconds": time.perf_counter() - start,
            }
        )
        trained = TrainedModel(f"on {count} demonstrations", model, params, {})
        answers[str(count)] = ask(NetworkSurrogate(trained), systems)
        tell(f"trained on {count}")
    small, large = (str(count) for count in study.compared)
    table = quality_table(answers, resamples, confidence, ours=large)
    return {
        "curve": [own | table["methods"][str(own["demonstrations"])] for own in trainings],
        "compared": list(study.compared),
        "gain": table["differences"][small]["negative_log_probability"],
        "seconds": seconds,
        "shared_systems": _shared(generator, systems),
    }


def runs_by_number(
    generator: MinimalDatasetGenerator, folder: Path, tell: Callable[[str], None]
) -> list[list[TrainingExample]]:
    """The examples of each system, in the order of the systems' numbers.

    Sizes and mechanisms come in turn in it, so that its first part is like the whole; a store has
    one size after the other.
    """
    store = generate_dataset(
        generator,
        folder,
        report=lambda done: tell(f"demonstrations on {done.systems} of {done.of} systems"),
        force=True,
    )
    found = {}
    for chunk in plan_chunks(generator):
        runs = to_runs(RunRecords(**store.read(chunk.name)))
        for number, run in zip(chunk.numbers, runs, strict=True):
            found[number] = extract_expert_demonstrations([run], None)
    return [found[number] for number in range(generator.count)]


def _training(
    study: ScalingStudy, held_out: HeldOut, examples: Sequence[TrainingExample]
) -> MinimalTrainingConfig:
    nonlinear = expert_for(held_out.mechanisms).mechanism == "nonlinear"
    epochs = max(round(study.steps / batches_an_epoch(examples, study.training)), 1)
    return replace(
        study.training,
        nonlinear=nonlinear,
        num_epochs=epochs,
        validation_frequency=max(epochs // 10, 1),
        early_stopping_patience=epochs,
    )


def _shared(generator: MinimalDatasetGenerator, systems: Sequence[HeldOutSystem]) -> int:
    numbers = range(generator.count)
    trained = {fingerprint(system_numbers(generator.system(_TRAINING, n))) for n in numbers}
    return sum(fingerprint(system_numbers(system.scm)) in trained for system in systems)
