"""The outcome model for mechanisms that are not linear: systems of Gaussian-process mechanisms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causal_bayes_opt.acquisition import smooth_functions as learned
from causal_bayes_opt.acquisition import smooth_mechanisms as smooth
from causal_bayes_opt.acquisition.mechanism_scales import N_DRAWS
from causal_bayes_opt.acquisition.outcome import Candidates, in_units
from causal_bayes_opt.core import keys
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.graphs import ancestors, reachable, topological_order
from causal_bayes_opt.core.padding import bucket, pad
from causal_bayes_opt.core.scaling import Scaling

N_MEMBERS = 24
N_ROWS = 16  # observed rows that are followed
_AT_ONCE, _MOST_FITTED = 32, 256  # candidates are padded to a multiple; beyond, to a power of two
_STEPS = 8  # of a member that are room for without another compilation
_HERD = 512  # observed rows among which those are chosen
_MOST_ROWS = 128  # observed rows over which the target's mean is taken when nothing is set


class _Schedule(NamedTuple):
    """For each member the mechanisms on the way to the target, causes first."""

    node: np.ndarray  # int [n_members, n_steps]
    length: np.ndarray  # int [n_members], how many of the steps there are
    function: np.ndarray  # int [n_members, n_steps], position among the distinct mechanisms
    distinct: list[learned.Mechanism]

    def users(self, mechanism: int) -> tuple[np.ndarray, np.ndarray]:
        """The members and steps at which one of the distinct mechanisms is followed."""
        in_use = np.arange(self.node.shape[1]) < self.length[:, None]
        members, steps = np.nonzero(in_use & (self.function == mechanism))
        return members, steps


@dataclass(frozen=True)
class SmoothOutcomeModel:
    """Systems ``[n_members]`` whose mechanisms are functions drawn from their posteriors.

    A member starts from observed rows and follows what changes: what was set takes its value, and
    each variable that depends on it moves by the difference of its mechanism there and as
    observed. So noise, and what hidden variables do to others, stays as it was in the row. Few
    rows are followed; that the same rows lie above or below the average when nothing is set is
    taken out by regression (control variates; Lavenberg and Welch 1981).

    Attributes:
        variables: names, in order.
        scaling: of the observational rows.
        target: the variable whose outcomes are asked for.
        rows: observed rows ``[n_rows, n_vars]``, standardised.
        schedule: which mechanism is followed when.
        functions: the mechanisms.
        draws: their weights, ``[n_members, n_steps, n_basis]``.
        waves: of the basis.
        noise: standard deviation of the target around its mechanism, in each member.
        unmoved: the target's mechanism in each member and row when nothing is set
            ``[n_members, n_rows]``, less its mean over many rows.
    """

    variables: tuple[str, ...]
    scaling: Scaling
    target: str
    rows: np.ndarray
    schedule: _Schedule
    functions: learned.Functions
    draws: np.ndarray
    waves: np.ndarray
    noise: np.ndarray
    unmoved: np.ndarray

    @classmethod
    def fit(
        cls,
        buffer: ExperienceBuffer,
        graphs: np.ndarray,
        target: str,
        key: jax.Array,
        ranges: Mapping[str, tuple[float, float]],
    ) -> SmoothOutcomeModel:
        """Choose members among the graphs, bool ``[n, n_vars, n_vars]``, and draw mechanisms.

        Every set of causes of the target gets its share of the members, as evenly as can be.

        Args:
            buffer: all rows; one informs every variable that was not set in it.
            graphs: to choose among.
            target: the variable whose outcomes will be asked for.
            key: of everything drawn.
            ranges: of the variables that may be set.
        """
        scaling, names = Scaling.of(buffer), tuple(buffer.get_variable_names())
        values, mask = buffer.rows()
        values = scaling.apply(values)
        evidence = learned.Evidence.of(values, mask)
        rng = keys.generator(key)
        t, settable = names.index(target), [names.index(name) for name in ranges]
        usual = learned.usual_values(values, mask, scaling, names, ranges)
        graphs = graphs[_evenly(graphs[:, :, t], N_MEMBERS // 2, rng).repeat(2)]
        schedule = _schedule(graphs, t, settable)
        slots = learned.room_for_parents(schedule.distinct)
        waves = learned.waves_of(slots)
        functions = learned.learn(schedule.distinct, evidence, slots, usual)
        posterior = learned.condition(functions, schedule.distinct, evidence, waves)
        # Members come in pairs, one as far above its mechanisms' means as the other is below them.
        shape = schedule.node.shape[1], smooth.n_basis(slots)
        normals = rng.normal(size=(N_MEMBERS // 2, 1, *shape)) * np.array([1, -1])[:, None, None]
        normals = normals.reshape(N_MEMBERS, *shape)
        draws = np.zeros_like(normals)
        for i in range(len(schedule.distinct)):
            members, steps = schedule.users(i)
            moved = normals[members, steps] @ np.asarray(posterior.root[i]).T
            draws[members, steps] = posterior.mean[i] + moved
        observed = values[~mask.any(axis=1)]
        # The target is the last step of every member.
        own = schedule.function[np.arange(len(graphs)), schedule.length - 1]
        noise = np.asarray(functions.scales.noise)[own]
        unmoved = np.zeros((len(graphs), N_ROWS))
        model = cls(
            names,
            scaling,
            target,
            representatives(learned.thinned(observed, _HERD), N_ROWS),
            schedule,
            functions,
            draws,
            waves,
            noise,
            unmoved,
        )
        nothing = Candidates.of([{}], names)
        overall = model._follow(nothing, learned.thinned(observed, _MOST_ROWS))[0].mean(axis=-1)
        own = model._follow(nothing, model.rows)[0]
        return replace(model, unmoved=own - overall[:, None])

    @property
    def corners_suffice(self) -> bool:
        """False: an optimum may lie anywhere in a range."""
        return False

    def means(self, target: str, candidates: Candidates) -> np.ndarray:
        """Expected outcomes ``[n_candidates, n_members]``, in standardised units of the target."""
        return self._adjusted(self._follow(candidates, self.rows))

    def predict(self, target: str, intervention: Mapping[str, float]) -> tuple[float, float, float]:
        """Mean of the target, its standard deviation over members, and that of one outcome."""
        means, within = self.outcomes(Candidates.of([intervention], self.variables))
        return in_units(means[0], within[0], self.scaling, self.variables.index(self.target))

    def outcomes(self, candidates: Candidates) -> tuple[np.ndarray, np.ndarray]:
        """What `means` gives, and the variance of one outcome around it ``[n_candidates]``."""
        levels = self._follow(candidates, self.rows)
        within = levels.var(axis=-1).mean(axis=-1) + np.square(self.noise).mean()
        return self._adjusted(levels), within

    def _adjusted(self, levels: np.ndarray) -> np.ndarray:
        """Means over rows, less the part that these rows' luck explains."""
        luck = self.unmoved
        centred = luck - luck.mean(axis=-1, keepdims=True)
        shared = (levels * centred).mean(axis=-1)
        slope = shared / np.maximum((centred**2).mean(axis=-1), 1e-12)
        return np.asarray(levels.mean(axis=-1) - np.clip(slope, 0.0, 1.0) * luck.mean(axis=-1))

    def _follow(self, candidates: Candidates, rows: np.ndarray) -> np.ndarray:
        """The target's mechanism ``[n_candidates, n_members, n_rows]`` where rows are led to."""
        n, d = len(candidates.columns), len(self.variables)
        room, wide = _room(n), bucket(d, 8)
        is_set, level = candidates.spread(candidates.standardised(self.scaling), d)
        found = _follow_rows(
            jnp.asarray(pad(is_set, room, wide)),
            jnp.asarray(pad(level, room, wide), jnp.float32),
            jnp.asarray(pad(rows, len(rows), wide), jnp.float32),
            jnp.asarray(self.schedule.node),
            jnp.asarray(self.schedule.length),
            jax.tree.map(lambda leaf: _single(leaf[self.schedule.function]), self.functions),
            jnp.asarray(self.draws, jnp.float32),
            jnp.asarray(self.waves, jnp.float32),
            self.variables.index(self.target),
        )
        return np.asarray(found, dtype=np.float64)[:n]


def _evenly(causes: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Positions of `n` graphs, so that each set of causes ``[n_graphs, n_vars]`` has its share.

    Systematic sampling along the graphs in the order of their sets.
    """
    order = np.lexsort(causes.T)
    place = ((np.arange(n) + rng.random()) * len(order) / n).astype(int)
    return np.asarray(order[place])


def _room(n: int) -> int:
    """To how many candidates `n` are padded: each number is compiled."""
    if n <= 1:
        return 1
    return -(-n // _AT_ONCE) * _AT_ONCE if n <= _MOST_FITTED else 1 << (n - 1).bit_length()


def representatives(rows: np.ndarray, n: int) -> np.ndarray:
    """The `n` rows ``[n, n_vars]`` over which averages are most like those over all rows.

    Kernel herding (Chen, Welling and Smola, Uncertainty in Artificial Intelligence 2010): the error
    of an average falls as 1 / n, that over rows drawn at random as 1 / sqrt(n). Where there are
    fewer rows they are used again.
    """
    squares = ((rows[:, None] - rows[None]) ** 2).sum(axis=-1)
    kernel = np.exp(-0.25 * squares / rows.shape[1])
    wanted, chosen = kernel.mean(axis=1), np.zeros(len(rows), dtype=int)
    had = np.zeros(len(rows))
    for number in range(n):
        again = chosen > chosen.min()
        best = int(np.argmax(np.where(again, -np.inf, wanted - had / (number + 1))))
        chosen[best] += 1
        had += kernel[best]
    return np.repeat(rows, chosen, axis=0)


def _parents(graph: np.ndarray, node: int) -> tuple[int, ...]:
    return tuple(np.flatnonzero(graph[:, node]).tolist())


def _schedule(graphs: np.ndarray, target: int, settable: Sequence[int]) -> _Schedule:
    """The mechanisms between what may be set and the target; nothing else can move."""
    steps: list[list[learned.Mechanism]] = []
    for m, graph in enumerate(graphs):
        wanted = ancestors(graph, target)
        reached = np.atleast_1d(reachable(graph)[list(settable)].any(axis=0))
        draw = 1 + m // 2 % N_DRAWS
        own = [
            learned.Mechanism(int(node), _parents(graph, node), draw if node == target else 0)
            for node in topological_order(graph)
            if node == target or (wanted[node] and reached[node])
        ]
        steps.append(own)
    distinct = sorted({step for own in steps for step in own})
    place = {step: i for i, step in enumerate(distinct)}
    length = np.array([len(own) for own in steps])
    room = bucket(int(length.max()), _STEPS)
    node, function = (np.zeros((len(graphs), room), dtype=int) for _ in range(2))
    for m, own in enumerate(steps):
        node[m, : len(own)] = [step.node for step in own]
        function[m, : len(own)] = [place[step] for step in own]
    return _Schedule(node, length, function, distinct)


@jax.jit
def _follow_rows(
    is_set: jax.Array,
    level: jax.Array,
    rows: jax.Array,
    node: jax.Array,
    length: jax.Array,
    functions: learned.Functions,
    draws: jax.Array,
    waves: jax.Array,
    target: jax.Array,
) -> jax.Array:
    """See `SmoothOutcomeModel._follow`; the target's own noise is left out."""
    start = jnp.where(is_set[:, None, :], level[:, None, :], rows[None])

    def member(of_member: tuple[Any, ...]) -> jax.Array:
        nodes, n_steps, own, weights = of_member

        def step(i: jax.Array, now: jax.Array) -> jax.Array:
            columns, there, scales, domain = jax.tree.map(lambda leaf: leaf[i], tuple(own))
            j, w = nodes[i], weights[i]

            def value(x: jax.Array) -> jax.Array:
                return smooth.evaluate(x[..., columns], w, there, scales, domain, waves)

            there_now = value(now)
            moved = there_now + (rows[:, j] - value(rows))[None]
            moved = jnp.where(j == target, there_now, moved)
            column = jnp.where(is_set[:, None, j], now[..., j], moved)
            here = jnp.arange(now.shape[-1]) == j
            return jnp.where(here, column[..., None], now)

        # As many steps as this member has, and not those of the longest.
        end: jax.Array = jax.lax.fori_loop(0, n_steps, step, start)
        return end[..., target]

    found: jax.Array = jax.lax.map(member, (node, length, functions, draws))
    return jnp.moveaxis(found, 0, 1)


def _single(leaf: np.ndarray) -> jax.Array:
    """Floats in float32, whole numbers and truth values as they are."""
    array = np.asarray(leaf)
    return jnp.asarray(array, jnp.float32 if array.dtype.kind == "f" else None)
