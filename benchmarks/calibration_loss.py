"""Whether `compute_calibration_loss` helps: the same trainings with several weights of it.

``python -m benchmarks.calibration_loss`` trains a small network on demonstrations (the truth of
simulated linear Gaussian systems of six variables) with each weight and judges it on fresh systems.
Each seed has its own demonstrations and its own first weights, which all weights of the loss share;
intervals are of the paired difference from weight 0 over the seeds (Student, 95 %).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from benchmarks.table import print_table
from causal_bayes_opt.surrogate.joint import log_prob_of_set
from causal_bayes_opt.surrogate.metrics import average_precision, calibration_error
from causal_bayes_opt.surrogate.predictor import AmortizedModel
from causal_bayes_opt.surrogate.training import DesignDistribution
from causal_bayes_opt.training.amortized_models import (
    MinimalTrainingConfig,
    train_amortized_model,
)
from causal_bayes_opt.training.data_generation import MinimalDatasetGenerator, TrainingExample
from causal_bayes_opt.training.loaders import SimpleDataLoader
from causal_bayes_opt.training.sources import rows_of, widen

WEIGHTS = (0.0, 0.1, 1.0)
SEEDS = (1, 2, 3, 4)
SYSTEMS, JUDGED_ON = 512, 1024
# One number of rows, so that a weight compiles once.
DESIGN = DesignDistribution(
    n_obs=(100, 100), rows_per_variable=(3, 3), max_experiments=15, observational=0.0, partial=0.0
)
MEASURES = ("nats on the true set", "average precision", "calibration error")


def judged(
    model: AmortizedModel, params: hk.Params, examples: Sequence[TrainingExample]
) -> list[float]:
    """The numbers of `MEASURES` for one network."""
    joint = jax.jit(jax.vmap(partial(model.joint, params)))
    losses, stated, edges = [], [], []
    for batch in SimpleDataLoader(examples, 100).get_batches(jax.random.key(0)):
        wide = widen(batch)
        found = joint(rows_of(wide))
        parents = jnp.asarray(wide.true_parents)
        losses.append(-jax.vmap(log_prob_of_set)(found, jnp.asarray(wide.target_index), parents))
        own = np.arange(len(wide.target_index)), wide.target_index
        others = wide.present.copy()
        others[own] = False
        stated.append(np.asarray(found.marginals)[own][others])
        edges.append(wide.true_parents[others])
    p, truth = np.concatenate(stated), np.concatenate(edges)
    nats = float(np.concatenate(losses).mean())
    return [nats, average_precision(p, truth), calibration_error(p, truth)]


def measured(seed: int) -> np.ndarray:
    """``[n_weights, n_measures]`` of the trainings of one seed."""
    generator = MinimalDatasetGenerator(
        graph_sizes=(6,),
        n_systems=SYSTEMS,
        teacher="truth",
        seed=seed,
        design=DESIGN,
    )
    examples = generator.generate_training_dataset()
    fresh = generator.generate_held_out_dataset(JUDGED_ON)
    found = []
    for weight in WEIGHTS:
        config = MinimalTrainingConfig(
            hidden_dim=32,
            num_layers=2,
            learning_rate=2e-3,
            num_epochs=10,
            validation_frequency=2,
            calibration_weight=weight,
            seed=seed,
        )
        found.append(judged(*train_amortized_model(examples, config), fresh))
        told = ", ".join(f"{n} {v:.4f}" for n, v in zip(MEASURES, found[-1], strict=True))
        print(f"seed {seed}, weight {weight}: {told}", flush=True)
    return np.array(found)


def main() -> None:
    found = np.stack([measured(seed) for seed in SEEDS])  # [n_seeds, n_weights, n_measures]
    rows: list[dict[str, object]] = []
    for w, weight in enumerate(WEIGHTS):
        for m, measure in enumerate(MEASURES):
            change = found[:, w, m] - found[:, 0, m]
            half = stats.t.ppf(0.975, len(SEEDS) - 1) * change.std(ddof=1) / np.sqrt(len(SEEDS))
            rows.append(
                {
                    "what": f"{measure}, weight {weight:g}",
                    "measured": f"{found[:, w, m].mean():.4f}",
                    "note": f"{change.mean():+.4f} ± {half:.4f} beside weight 0" if w else "",
                }
            )
    print_table(rows)


if __name__ == "__main__":
    main()
