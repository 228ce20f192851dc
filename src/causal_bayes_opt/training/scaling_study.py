"""Do more demonstrations help? The same network on growing parts of one set of demonstrations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from causal_bayes_opt.errors import ConfigError
from causal_bayes_opt.surrogate.network import NetworkSurrogate, TrainedModel
from causal_bayes_opt.training.amortized_models import MinimalTrainingConfig, train_amortized_model
from causal_bayes_opt.training.criteria import Measured
from causal_bayes_opt.training.data_generation import MinimalDatasetGenerator
from causal_bayes_opt.training.evidence import ask
from causal_bayes_opt.training.generation import generate_dataset, read_examples
from causal_bayes_opt.training.held_out import HeldOutSystem
from causal_bayes_opt.training.quality import quality_table


@dataclass(frozen=True)
class ScalingStudy:
    """What is compared.

    Attributes:
        demonstrations: numbers, rising; the criterion compares `compared`.
        compared: the two of them whose difference counts.
        steps: of each training; all see as many batches, so that only the data differ.
        generator: of the demonstrations.
        training: of the network; its number of epochs follows from `steps`.
    """

    demonstrations: tuple[int, ...] = (250, 1000, 2500, 5000)
    compared: tuple[int, int] = (1000, 5000)
    steps: int = 600
    generator: MinimalDatasetGenerator = field(default_factory=MinimalDatasetGenerator)
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


def measure_scaling(
    study: ScalingStudy,
    systems: Sequence[HeldOutSystem],
    folder: Path,
    resamples: int,
    confidence: float,
    report: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Train on each number of demonstrations and judge all on the same held-out systems.

    Args:
        study: what is compared.
        systems: to judge on.
        folder: keeps the demonstrations and the runs; the same call goes on from them.
        resamples: of the bootstrap.
        confidence: of the intervals.
        report: called with a sentence after each part.

    Returns:
        ``curve``, an entry for each number with ``demonstrations`` and the measures; ``gain``, the
        nats on the true set of the larger of the two compared less those of the smaller.
    """
    store = folder / "demonstrations"
    trials = study.generator.demonstrations_per_graph
    generator = replace(study.generator, n_systems=-(-study.demonstrations[-1] // trials))
    generate_dataset(generator, store, force=True)
    if report is not None:
        report(f"{generator.demonstrations} demonstrations")
    # A run has a state before its first trial too; runs are kept whole.
    examples = read_examples(store)
    answers = {}
    for count in study.demonstrations:
        own = examples[: count // trials * (trials + 1)]
        epochs = max(study.steps * study.training.batch_size // len(own), 1)
        config = replace(
            study.training,
            num_epochs=epochs,
            validation_frequency=max(epochs // 10, 1),
            early_stopping_patience=epochs,
        )
        model, params = train_amortized_model(own, config, folder / f"on-{count}")
        trained = TrainedModel(f"on {count} demonstrations", model, params, {})
        answers[str(count)] = ask(NetworkSurrogate(trained), systems)
        if report is not None:
            report(f"trained on {count}")
    small, large = (str(count) for count in study.compared)
    table = quality_table(answers, resamples, confidence, ours=large)
    curve = [
        {"demonstrations": count, **table["methods"][str(count)]} for count in study.demonstrations
    ]
    gain = Measured(**table["differences"][small]["negative_log_probability"])
    return {
        "curve": curve,
        "compared": list(study.compared),
        "gain": asdict(gain),
        "steps": study.steps,
    }
