"""Demonstrations: what the expert believed, trial after trial, on random systems."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from causal_bayes_opt.core.graphs import FAMILIES, random_graph
from causal_bayes_opt.core.random_systems import SystemDistribution, random_scm
from causal_bayes_opt.core.scm import SCM
from causal_bayes_opt.errors import ConfigError, DataError, check_name
from causal_bayes_opt.expert.parent_scale import PARENT_SCALE, run_many

MAX_CONVERSION_SECONDS = 1.0  # a run
_TRAINING, _HELD_OUT = 0, 1


@dataclass(frozen=True, eq=False)
class TrainingExample:
    """What the expert saw up to one trial, and what it believed then.

    Attributes:
        observational_data: standardised rows ``[n_obs, n_vars]``, float64.
        interventional_data: ``[n_int, n_vars, 2]``: value in the same scale, 1 where set.
        parent_posterior: the expert's probability of each variable being a parent ``[n_vars]``.
        target_variable: the target.
        graph_metadata: see `extract_graph_metadata`; also ``trial`` (0 before the first) and
            ``expert_sets``, the expert's probability of each set.
    """

    observational_data: np.ndarray
    interventional_data: np.ndarray
    parent_posterior: np.ndarray
    target_variable: str
    graph_metadata: Mapping[str, Any]


@dataclass(frozen=True)
class MinimalDatasetGenerator:
    """Runs the expert on random systems and keeps every trial.

    Each run gives one example a trial, and one more for the state before the first.

    Attributes:
        graph_sizes: numbers of variables.
        graphs_per_size: systems of each.
        demonstrations_per_graph: trials of each run.
        seed: systems and runs follow from it; training and held-out systems never share a seed.
        graph_families: taken in turn; keys of `core.graphs.FAMILIES`.
        mean_parents: expected parents of a variable, for the families that have a density.
        systems: mechanisms, noise and ranges of parameters; its sizes and density are not used.
        expert: options of `PARENT_SCALE`.
    """

    graph_sizes: tuple[int, ...] = (3, 4, 5, 6, 7, 8)
    graphs_per_size: int = 16
    demonstrations_per_graph: int = 10
    seed: int = 0
    graph_families: tuple[str, ...] = ("erdos_renyi",)
    mean_parents: float = 1.0
    systems: SystemDistribution = field(default_factory=SystemDistribution)
    expert: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.graph_sizes or min(self.graph_sizes) < 2:
            raise ConfigError(f"graph_sizes is {self.graph_sizes}; expected sizes of 2 or more")
        for name in ("graphs_per_size", "demonstrations_per_graph"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not self.graph_families:
            raise ConfigError("at least one graph family is needed")
        for family in self.graph_families:
            check_name(family, FAMILIES, "graph family")
        if not self.mean_parents > 0:
            raise ConfigError(f"mean_parents is {self.mean_parents:g}; it must be above 0")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; it cannot be negative")

    def generate_training_dataset(self) -> list[TrainingExample]:
        """Run the expert on the training systems, on all cores."""
        count = len(self.graph_sizes) * self.graphs_per_size
        return self._run(_TRAINING, count)

    def generate_held_out_dataset(self, n_systems: int = 20) -> list[TrainingExample]:
        """The same on systems whose graphs and parameters no training system shares."""
        if n_systems < 1:
            raise ConfigError(f"n_systems is {n_systems}; it must be at least 1")
        return self._run(_HELD_OUT, n_systems)

    def system(self, part: int, number: int) -> SCM:
        """The system of a number; `part` is 0 for training and 1 for held-out ones."""
        rng = np.random.default_rng((self.seed, part, number))
        size = self.graph_sizes[number % len(self.graph_sizes)]
        family = self.graph_families[number % len(self.graph_families)]
        adjacency = random_graph(family, rng, size, self.mean_parents)
        scm = random_scm(int(rng.integers(2**31)), size, self.systems, adjacency)
        caused = [name for name in scm.variables if scm.parents(name)]
        return scm.with_target(str(rng.choice(caused or list(scm.variables))))

    def _run(self, part: int, count: int) -> list[TrainingExample]:
        scms = [self.system(part, number) for number in range(count)]
        seeds = [
            int(np.random.default_rng((self.seed, part, number, 1)).integers(2**31))
            for number in range(count)
        ]
        runs = run_many(scms, self.demonstrations_per_graph, seeds, **self.expert)
        return extract_expert_demonstrations(runs)


def create_random_linear_scm(
    num_nodes: int, seed: int = 0, *, family: str = "erdos_renyi", mean_parents: float = 1.0
) -> SCM:
    """Draw a linear Gaussian system of a graph family; its target has a parent if any variable has.

    Raises:
        UnknownNameError: no such family.
        ConfigError: fewer than 2 nodes or an impossible density.
    """
    generator = MinimalDatasetGenerator(
        graph_sizes=(num_nodes,), seed=seed, graph_families=(family,), mean_parents=mean_parents
    )
    return generator.system(_TRAINING, 0)


def extract_expert_demonstrations(
    parent_scale_runs: Sequence[Mapping[str, Any]], target_count: int | None = None
) -> list[TrainingExample]:
    """Turn runs of the expert into examples: before the first trial, and after each.

    Args:
        parent_scale_runs: what `PARENT_SCALE.run_algorithm` returned.
        target_count: at most so many; None keeps all.
    """
    if target_count is not None and target_count < 0:
        raise ConfigError(f"target_count is {target_count}; it cannot be negative")
    examples: list[TrainingExample] = []
    for run in parent_scale_runs:
        metadata = extract_graph_metadata(run)
        marginals = [run["initial_probabilities"], *run["posterior_probabilities"]]
        sets = [run["initial_sets"], *run["posterior_sets"]]
        scaled = (run["row_values"] - run["means"]) / run["stds"]
        tried = run["row_trial"] >= 0
        for trial, (posterior, expert_sets) in enumerate(zip(marginals, sets, strict=True)):
            seen = tried & (run["row_trial"] <= trial)
            examples.append(
                TrainingExample(
                    observational_data=run["D_O_standardized"],
                    interventional_data=format_interventional_data(
                        scaled[seen], run["row_mask"][seen]
                    ),
                    parent_posterior=np.asarray(posterior),
                    target_variable=run["target"],
                    graph_metadata={**metadata, "trial": trial, "expert_sets": expert_sets},
                )
            )
    return examples[:target_count]


def format_interventional_data(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Rows ``[n_int, n_vars]`` and their mask as ``[n_int, n_vars, 2]``: value, 1 where set.

    Raises:
        DataError: the shapes differ.
    """
    values, mask = np.asarray(values, dtype=np.float64), np.asarray(mask)
    if values.shape != mask.shape:
        raise DataError(f"values have shape {values.shape}, the mask {mask.shape}")
    return np.stack([values, mask.astype(np.float64)], axis=-1)


def extract_graph_metadata(run: Mapping[str, Any]) -> dict[str, Any]:
    """What an example keeps of its run.

    ``variables``, ``true_parents``, ``seed``, ``means``, ``stds``, ``ranges``, and every row in the
    user's units: ``row_values``, ``row_mask``, ``row_trial`` (shared by the run's examples).
    """
    kept = ("variables", "true_parents", "seed", "means", "stds", "ranges")
    rows = ("row_values", "row_mask", "row_trial")
    return {name: run[name] for name in (*kept, *rows)}


def validate_trajectory_consistency(
    run: Mapping[str, Any], examples: Sequence[TrainingExample]
) -> bool:
    """True where the examples give back the run bit by bit: rows, interventions, posteriors."""
    posteriors = [run["initial_probabilities"], *run["posterior_probabilities"]]
    sets = [run["initial_sets"], *run["posterior_sets"]]
    if len(examples) != len(posteriors):
        return False
    for trial, (example, marginals, expert_sets) in enumerate(
        zip(examples, posteriors, sets, strict=True)
    ):
        metadata = example.graph_metadata
        seen = (run["row_trial"] >= 0) & (run["row_trial"] <= trial)
        same = (
            np.array_equal(example.observational_data, run["D_O_standardized"])
            and np.array_equal(example.parent_posterior, marginals)
            and metadata["expert_sets"] == expert_sets
            and np.array_equal(metadata["row_values"], run["row_values"])
            and np.array_equal(metadata["row_mask"], run["row_mask"])
            and np.array_equal(example.interventional_data[..., 1] > 0, run["row_mask"][seen])
            and np.array_equal(
                example.interventional_data[..., 0],
                (run["row_values"][seen] - run["means"]) / run["stds"],
            )
            and example.target_variable == run["target"]
        )
        if not same:
            return False
    return True


def run_parent_scale_example(seed: int = 0, T: int = 10) -> dict[str, Any]:
    """One run of the expert on a random linear system of five variables."""
    return PARENT_SCALE(create_random_linear_scm(5, seed), seed).run_algorithm(T)


def measure_conversion_performance(run: Mapping[str, Any] | None = None) -> float:
    """Seconds that the conversion of one run takes, the best of five."""
    run = run_parent_scale_example() if run is None else run
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        extract_expert_demonstrations([run])
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def validate_data_pipeline() -> dict[str, Any]:
    """Run the expert once, convert, and check that nothing is lost and nothing takes long.

    Returns:
        ``examples``, ``conversion_seconds``.

    Raises:
        DataError: the conversion loses something, or takes more than a second a run.
    """
    run = run_parent_scale_example()
    examples = extract_expert_demonstrations([run])
    if not validate_trajectory_consistency(run, examples):
        raise DataError("the conversion of a run to examples lost something")
    seconds = measure_conversion_performance(run)
    if seconds > MAX_CONVERSION_SECONDS:
        raise DataError(f"the conversion of a run took {seconds:.2f} s; at most 1 s is allowed")
    return {"examples": len(examples), "conversion_seconds": seconds}
