"""Training a policy network: starts on simulated systems, imitation, then GRPO, in the one loop."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax

from causal_bayes_opt.acquisition import policy_network as net
from causal_bayes_opt.acquisition.episodes import Start, first_improvements, greedy_improvements
from causal_bayes_opt.acquisition.features import Seen, features, no_history
from causal_bayes_opt.acquisition.grpo import GRPOConfig, grpo_loss, imitation_loss, roll_out
from causal_bayes_opt.acquisition.learned import TrainedPolicy
from causal_bayes_opt.errors import ConfigError
from causal_bayes_opt.training.checkpoints import seconds_trained
from causal_bayes_opt.training.loop import Progress, train
from causal_bayes_opt.training.loop_config import LoopConfig
from causal_bayes_opt.training.policy_starts import StartDistribution, kept_starts, make_starts
from causal_bayes_opt.training.sources import Place
from causal_bayes_opt.training.steps import StepFunction

_HELD_OUT, _JUDGED = 1_000_003, 2_000_003  # added to a seed; far from any other
_MOST_HELD_OUT = 512


@dataclass(frozen=True)
class PolicyRun:
    """All that a run needs; `read_policy_run` makes it from a file.

    Attributes:
        name: of the policy that it makes.
        network: its size.
        starts: what episodes begin with.
        n_starts: how many systems are simulated; an eighth as many more, 16 to 512, to choose the
            weights by, and again to judge them.
        grpo: how rollouts become a gradient.
        imitation: steps of imitation first; None: none.
        loop: of GRPO; a batch is `batch_size` starts.
    """

    name: str = "policy"
    network: net.PolicyConfig = field(default_factory=net.PolicyConfig)
    starts: StartDistribution = field(default_factory=StartDistribution)
    n_starts: int = 2048
    grpo: GRPOConfig = field(default_factory=GRPOConfig)
    imitation: LoopConfig | None = None
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        if self.n_starts < 1:
            raise ConfigError(f"n_starts is {self.n_starts}; it must be at least 1")


def train_policy(
    run: PolicyRun,
    folder: Path | None = None,
    report: Callable[[str, Progress], None] | None = None,
) -> TrainedPolicy:
    """Train a policy; the same folder goes on where an earlier call was stopped.

    Raises:
        ModelError: the folder holds a run with another configuration.
        ConfigError: the loss is not finite or diverges.
    """
    began = time.perf_counter() - (0.0 if folder is None else seconds_trained(folder))
    network = net.PolicyNetwork(run.network)
    # Teacher and optimum set no more variables than the policy may.
    distribution = replace(run.starts, max_targets=run.grpo.max_targets)
    starts = kept_starts(distribution, run.n_starts, run.loop.seed, folder)
    n_held = min(max(run.n_starts // 8, 16), _MOST_HELD_OUT)
    # Weights are chosen on some systems and judged on others.
    held_out, judged = (
        make_starts(distribution, n_held, run.loop.seed + far) for far in (_HELD_OUT, _JUDGED)
    )
    key = jax.random.key(run.loop.seed)

    def missing(params: hk.Params, on: Start) -> np.ndarray:
        """What trials miss ``[n_steps]``, mean over systems: 0 is the optimum, 1 doing nothing."""
        n, most = run.grpo.n_steps, run.grpo.max_targets
        found = greedy_improvements(key, network, params, on, n, most)
        return np.asarray(1.0 - found.mean(axis=0))

    def shortfall(params: hk.Params) -> float:
        return float(missing(params, held_out).mean())

    def stage(name: str, source: Any, loop: LoopConfig, start: hk.Params | None) -> hk.Params:
        inside = None if folder is None else folder / name
        told = None if report is None else partial(report, name)
        return train(network, source, loop, inside, told, start=start, validate=shortfall)

    params = None
    measured = {}
    if run.imitation is not None:
        params = stage("imitation", Imitation(starts, run.imitation), run.imitation, None)
        measured["imitation_shortfall"] = float(missing(params, judged).mean())
    reference = network.init(key) if params is None else params
    episodes = Episodes(starts, reference, run.grpo, run.loop)
    params = stage("grpo", episodes, run.loop, reference)
    chosen, place = disagreement(network, params, judged, run.grpo.max_targets)
    trials = missing(params, judged)
    measured |= {
        "shortfall": float(trials.mean()),
        "first_shortfall": float(trials[0]),
        "teachers_first_shortfall": float(1.0 - first_improvements(judged).mean()),
        "differs_from_teacher": chosen,
        "values_differ_from_teacher": place,
    }
    card = {
        **json.loads(json.dumps(asdict(run))),
        **{name: round(value, 4) for name, value in measured.items()},
        "training_seconds": round(time.perf_counter() - began, 1),
    }
    return TrainedPolicy(run.name, network, params, card)


@dataclass(frozen=True, eq=False)
class Imitation:
    """Batches of starts with what the teacher does first, which is expected improvement."""

    starts: Start
    loop: LoopConfig

    def describe(self) -> dict[str, Any]:
        """The number of starts, and their digest."""
        return {"imitation": _digest(self.starts)}

    def batches(self, place: Place) -> Iterator[tuple[Place, Start]]:
        """Starts drawn with repetition, by the seed and the number of the batch."""
        return _batches(self.starts, self.loop, place)

    def loss(
        self, model: net.PolicyNetwork, params: hk.Params, batch: Start, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Negative log-probability of the teacher's actions, in nats."""
        return imitation_loss(model, params, _first_sight(batch), batch), {}


@dataclass(frozen=True, eq=False)
class Episodes:
    """Batches of starts, and GRPO's own step on the episodes played from them."""

    starts: Start
    reference: hk.Params
    grpo: GRPOConfig
    loop: LoopConfig

    @property
    def updates(self) -> int:
        """Changes of the weights in each step of the loop."""
        return self.grpo.updates

    def describe(self) -> dict[str, Any]:
        """The configuration, and the digest of the starts."""
        grpo: dict[str, Any] = json.loads(json.dumps(asdict(self.grpo)))
        return {"grpo": grpo, "starts": _digest(self.starts)}

    def batches(self, place: Place) -> Iterator[tuple[Place, Start]]:
        """See `Imitation.batches`."""
        return _batches(self.starts, self.loop, place)

    def loss(
        self, model: net.PolicyNetwork, params: hk.Params, batch: Start, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The loss on episodes of the same weights, whose ratio is 1."""
        rollouts = roll_out(key, model, jax.lax.stop_gradient(params), batch, self.grpo)
        return grpo_loss(model, params, self.reference, rollouts, self.grpo)

    def step(
        self, model: net.PolicyNetwork, optimizer: optax.GradientTransformation
    ) -> StepFunction:
        """Play episodes once, then follow the clipped gradient on them several times."""

        def step(
            params: hk.Params, opt_state: optax.OptState, batch: Start, key: jax.Array
        ) -> tuple[hk.Params, optax.OptState, dict[str, jax.Array]]:
            rollouts = roll_out(key, model, params, batch, self.grpo)
            terms = {name: term.mean() for name, term in rollouts.steps.terms._asdict().items()}

            def loss_of(weights: hk.Params) -> tuple[jax.Array, dict[str, jax.Array]]:
                return grpo_loss(model, weights, self.reference, rollouts, self.grpo)

            def update(
                carry: tuple[hk.Params, optax.OptState], _: None
            ) -> tuple[tuple[hk.Params, optax.OptState], dict[str, jax.Array]]:
                weights, state = carry
                (loss, parts), grads = jax.value_and_grad(loss_of, has_aux=True)(weights)
                changes, state = optimizer.update(grads, state, weights)
                told = {"loss": loss, **parts, "grad_norm": optax.tree.norm(grads)}
                return (optax.apply_updates(weights, changes), state), told

            (params, opt_state), told = jax.lax.scan(
                update, (params, opt_state), length=self.grpo.updates
            )
            return params, opt_state, {name: v[-1] for name, v in told.items()} | terms

        return step


def disagreement(
    network: net.PolicyNetwork, params: hk.Params, starts: Start, max_targets: int
) -> tuple[float, float]:
    """How far first decisions are from the teacher's.

    Returns:
        The share that sets other variables, and, where they are the same, the mean distance of
        their places (a range is 2 wide).
    """
    seen = jax.jit(_first_sight)(starts)
    found = jax.vmap(partial(network.apply, params))(seen, starts.asked.present)
    action = net.Action((found.logits > 0) & starts.asked.settable, found.mean)
    done = jax.vmap(partial(net.legal, max_targets=max_targets))(
        action, found, starts.asked.settable
    )
    other = (done.chosen != starts.teacher.chosen).any(axis=1)
    both = done.chosen & starts.teacher.chosen & ~other[:, None]
    away = jnp.where(both, jnp.abs(done.place - starts.teacher.place), 0.0)
    return float(other.mean()), float(away.sum() / jnp.maximum(both.sum(), 1))


@jax.jit
def _first_sight(starts: Start) -> Seen:
    n_vars = starts.asked.low.shape[-1]
    none = no_history(n_vars)
    return jax.vmap(lambda s: features(s.mechanisms, s.asked, none))(starts)


def _batches(starts: Start, loop: LoopConfig, place: Place) -> Iterator[tuple[Place, Start]]:
    n = starts.asked.target.shape[0]
    while True:
        chosen = np.random.default_rng((loop.seed, place.batch)).integers(n, size=loop.batch_size)
        place = place._replace(batch=place.batch + 1)
        yield place, jax.tree.map(lambda leaf, chosen=chosen: leaf[chosen], starts)


def _digest(starts: Start) -> str:
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(starts):
        found.update(np.asarray(leaf).tobytes())
    return found.hexdigest()[:16]
