"""Demonstrations: what the expert believed, trial after trial, on random systems."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_bayes_opt.core.graphs import FAMILIES, random_graph
from causal_bayes_opt.core.random_systems import SystemDistribution, systems_on_graphs, to_scm
from causal_bayes_opt.core.sample import SystemArrays
from causal_bayes_opt.core.scm import SCM
from causal_bayes_opt.errors import ConfigError, DataError, check_name
from causal_bayes_opt.expert.parent_scale import PARENT_SCALE, options_of, run_many
from causal_bayes_opt.surrogate.network import VARIABLE_BUCKETS
from causal_bayes_opt.surrogate.training import DesignDistribution
from causal_bayes_opt.training.records import RunRecords, to_records, to_runs
from causal_bayes_opt.training.simulated import simulated_records, with_exact_posteriors

MAX_CONVERSION_SECONDS = 1.0  # a run
TEACHERS = ("parent_scale", "truth", "exact")
_MOST_EXACT = 12  # variables
_TRAINING, _HELD_OUT = 0, 1
_RUN, _SYSTEM = 1, 2


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
    """Data of random systems with what a teacher says of them.

    The teacher ``"parent_scale"`` runs the expert and gives an example a trial, and one more for
    the state before the first. The teacher ``"truth"`` simulates data under a design; its one
    example a system has the true parents as its posterior. The teacher ``"exact"`` does the same
    with the exact posterior given the unscaled rows, for linear Gaussian systems drawn from the
    prior that exact inference assumes; targets are then drawn among all variables, since choosing
    one that has parents would tell something.

    Attributes:
        graph_sizes: numbers of variables.
        graphs_per_size: systems of each.
        demonstrations_per_graph: trials of each run of the expert.
        seed: systems and runs follow from it; training and held-out systems never share a seed.
        graph_families: taken in turn; keys of `core.graphs.FAMILIES`.
        mean_parents: expected parents of a variable, for the families that have a density.
        systems: mechanisms, noise, ranges of parameters, scaling; its sizes and its density are
            not used.
        teacher: one of `TEACHERS`.
        design: what data the teachers ``"truth"`` and ``"exact"`` get.
        expert: options of `PARENT_SCALE`.
        n_systems: in all, sizes in turn; None: `graphs_per_size` of each size.
    """

    graph_sizes: tuple[int, ...] = (3, 4, 5, 6, 7, 8)
    graphs_per_size: int = 16
    demonstrations_per_graph: int = 10
    seed: int = 0
    graph_families: tuple[str, ...] = ("erdos_renyi",)
    mean_parents: float = 1.0
    systems: SystemDistribution = field(default_factory=SystemDistribution)
    teacher: str = "parent_scale"
    design: DesignDistribution = field(default_factory=DesignDistribution)
    expert: Mapping[str, Any] = field(default_factory=dict)
    n_systems: int | None = None

    def __post_init__(self) -> None:
        if not self.graph_sizes or min(self.graph_sizes) < 2:
            raise ConfigError(f"graph_sizes is {self.graph_sizes}; expected sizes of 2 or more")
        if max(self.graph_sizes) > VARIABLE_BUCKETS[-1]:
            raise ConfigError(
                f"graph_sizes reaches {max(self.graph_sizes)}; no network takes more than "
                f"{VARIABLE_BUCKETS[-1]} variables"
            )
        for name in ("graphs_per_size", "demonstrations_per_graph", "n_systems"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1")
        if not self.graph_families:
            raise ConfigError("at least one graph family is needed")
        for family in self.graph_families:
            check_name(family, FAMILIES, "graph family")
        check_name(self.teacher, TEACHERS, "teacher")
        self._check_density()
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; it cannot be negative")
        if self.teacher == "parent_scale":
            options_of(self.expert)
        if self.teacher == "exact":
            self._check_prior()

    @property
    def count(self) -> int:
        """Number of training systems."""
        return self.n_systems or len(self.graph_sizes) * self.graphs_per_size

    @property
    def demonstrations(self) -> int:
        """Number of training demonstrations, as the trials of the expert or as systems."""
        trials = self.demonstrations_per_graph if self.teacher == "parent_scale" else 1
        return self.count * trials

    def generate_training_dataset(self) -> list[TrainingExample]:
        """Examples of the training systems, made on all cores."""
        return self._examples(_TRAINING, self.count)

    def generate_held_out_dataset(self, n_systems: int = 20) -> list[TrainingExample]:
        """The same on systems whose graphs and parameters no training system shares."""
        if n_systems < 1:
            raise ConfigError(f"n_systems is {n_systems}; it must be at least 1")
        return self._examples(_HELD_OUT, n_systems)

    def size_of(self, number: int) -> int:
        """Number of variables of a system."""
        return self.graph_sizes[number % len(self.graph_sizes)]

    def system(self, part: int, number: int) -> SCM:
        """The system of a number; `part` is 0 for training and 1 for held-out ones."""
        arrays, targets = self._draw(part, [number])
        scm = to_scm(SystemArrays(*(np.asarray(leaf)[0] for leaf in arrays)))
        return scm.with_target(scm.variables[targets[0]])

    def records(self, part: int, numbers: Sequence[int]) -> RunRecords:
        """The runs of some systems of one size as arrays."""
        if self.teacher == "parent_scale":
            return to_records(self._run(part, numbers))
        return self._simulate(part, numbers)

    def system_seed(self, part: int, number: int) -> int:
        """The seed of a system's parameters."""
        return self._seed(part, number, _SYSTEM)

    def _examples(self, part: int, count: int) -> list[TrainingExample]:
        if self.teacher == "parent_scale":
            return extract_expert_demonstrations(self._run(part, range(count)), None)
        runs: dict[int, dict[str, Any]] = {}
        for size in dict.fromkeys(self.graph_sizes):
            own = [number for number in range(count) if self.size_of(number) == size]
            if own:
                runs |= zip(own, to_runs(self._simulate(part, own)), strict=True)
        return extract_expert_demonstrations([runs[number] for number in range(count)], None)

    def _run(self, part: int, numbers: Sequence[int]) -> list[dict[str, Any]]:
        scms = [self.system(part, number) for number in numbers]
        seeds = [self._seed(part, number, _RUN) for number in numbers]
        return run_many(scms, self.demonstrations_per_graph, seeds, **self.expert)

    def _simulate(self, part: int, numbers: Sequence[int]) -> RunRecords:
        # Few sizes of batches, so that little is compiled; systems do not depend on each other.
        room = 1 << (len(numbers) - 1).bit_length()
        filled = [*numbers, *[numbers[0]] * (room - len(numbers))]
        systems, targets = self._draw(part, filled)
        seeds = [self._seed(part, number, _RUN) for number in filled]
        records = simulated_records(seeds, systems, targets, self.design)
        records = RunRecords(*(field[: len(numbers)] for field in records))
        if self.teacher == "truth":
            return records
        return with_exact_posteriors(records, self._edge_probability(self.size_of(numbers[0])))

    def _draw(self, part: int, numbers: Sequence[int]) -> tuple[SystemArrays, list[int]]:
        """Systems of one size, padded to its bucket, and the position of each one's target."""
        graphs, targets = [], []
        for number in numbers:
            rng = np.random.default_rng((self.seed, part, number))
            family = self.graph_families[number // len(self.graph_sizes) % len(self.graph_families)]
            graph = random_graph(family, rng, self.size_of(number), self.mean_parents)
            possible = graph.any(axis=0) & (self.teacher != "exact")
            graphs.append(graph)
            targets.append(int(rng.choice(np.flatnonzero(possible | ~possible.any()))))
        seeds = jnp.asarray([self.system_seed(part, number) for number in numbers])
        keys = jax.vmap(jax.random.key)(seeds)
        size = next(bucket for bucket in VARIABLE_BUCKETS if bucket >= len(graphs[0]))
        return systems_on_graphs(keys, np.stack(graphs), self.systems, size), targets

    def _seed(self, part: int, number: int, use: int) -> int:
        return int(np.random.default_rng((self.seed, part, number, use)).integers(2**31))

    def _edge_probability(self, n_vars: int) -> float:
        return min(1.0, 2 * self.mean_parents / (n_vars - 1))

    def _check_prior(self) -> None:
        if self.systems.parameters != "bge" or self.graph_families != ("erdos_renyi",):
            raise ConfigError(
                "the teacher 'exact' labels systems of its own prior only: parameters='bge' and "
                "the family 'erdos_renyi'"
            )
        complete = self._edge_probability(min(self.graph_sizes)) == 1
        if max(self.graph_sizes) > _MOST_EXACT or complete:
            raise ConfigError(
                f"the teacher 'exact' takes up to {_MOST_EXACT} variables and graphs that are not "
                "certain to be complete"
            )

    def _check_density(self) -> None:
        most = (min(self.graph_sizes) - 1) / 2
        if not 0 < self.mean_parents <= most:
            raise ConfigError(
                f"mean_parents is {self.mean_parents:g}; a graph of {min(self.graph_sizes)} "
                f"variables holds more than 0 and at most {most:g} a variable"
            )


def create_random_linear_scm(
    num_nodes: int, seed: int = 0, *, family: str = "erdos_renyi", mean_parents: float = 1.0
) -> SCM:
    """Draw a linear Gaussian system of a graph family; its target has a parent if any variable has.

    `mean_parents` is cut to what a graph of that size can hold.

    Raises:
        UnknownNameError: no such family.
        ConfigError: fewer than 2 nodes or an impossible density.
    """
    return _random_scm("linear", num_nodes, seed, family, mean_parents)


def create_random_polynomial_scm(
    num_nodes: int, seed: int = 0, *, family: str = "erdos_renyi", mean_parents: float = 1.0
) -> SCM:
    """The same with polynomial mechanisms."""
    return _random_scm("polynomial", num_nodes, seed, family, mean_parents)


def create_random_sigmoid_scm(
    num_nodes: int, seed: int = 0, *, family: str = "erdos_renyi", mean_parents: float = 1.0
) -> SCM:
    """The same with sigmoid mechanisms."""
    return _random_scm("sigmoid", num_nodes, seed, family, mean_parents)


def create_random_neural_scm(
    num_nodes: int, seed: int = 0, *, family: str = "erdos_renyi", mean_parents: float = 1.0
) -> SCM:
    """The same with small neural networks as mechanisms."""
    return _random_scm("neural", num_nodes, seed, family, mean_parents)


def _random_scm(mechanism: str, num_nodes: int, seed: int, family: str, mean_parents: float) -> SCM:
    generator = MinimalDatasetGenerator(
        graph_sizes=(num_nodes,),
        seed=seed,
        graph_families=(family,),
        mean_parents=min(mean_parents, (num_nodes - 1) / 2),
        systems=SystemDistribution(mechanisms=(mechanism,)),
    )
    return generator.system(_TRAINING, 0)


def extract_expert_demonstrations(
    parent_scale_runs: Sequence[Mapping[str, Any]], target_count: int | None = 1000
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
