"""The outcome model for mechanisms that are not linear: systems of Gaussian-process mechanisms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causal_bayes_opt.acquisition import smooth_mechanisms as smooth
from causal_bayes_opt.acquisition.members import resample
from causal_bayes_opt.acquisition.outcome import Candidates
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.graphs import ancestors, reachable, topological_order
from causal_bayes_opt.core.padding import bucket, double, pad
from causal_bayes_opt.core.scaling import Scaling

N_MEMBERS = 24
N_ROWS = 16  # observed rows that are followed
_MOST_ROWS = 128  # observed rows over which the target's mean is taken when nothing is set
_EVERY = 10  # experiments, before scales are learned anew
_TRIED = 24  # experiments among the rows from which scales are learned
_RARE = 0.01  # share of observed values at each end that are not usual
_FORETOLD = 128  # experiments from which is judged how well a mechanism foretells
_REACH = 2.0  # length scales between the data and the end of the sines' interval


class _Schedule(NamedTuple):
    """For each member the mechanisms on the way to the target, causes first."""

    node: np.ndarray  # int [n_members, n_steps], n_vars where there is none
    function: np.ndarray  # int [n_members, n_steps], position among the distinct mechanisms
    distinct: list[tuple[int, tuple[int, ...]]]  # (variable, its parents)


class _Functions(NamedTuple):
    """Distinct mechanisms as arrays, leading axis ``[n_functions]``."""

    columns: jax.Array  # int [., n_slots]
    there: jax.Array  # bool [., n_slots]
    scales: smooth.Scales
    domain: smooth.Domain


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
    functions: _Functions
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
        log_weights: np.ndarray | None = None,
    ) -> SmoothOutcomeModel:
        """Choose members among the graphs, bool ``[n, n_vars, n_vars]``, and draw mechanisms.

        Members are drawn by how well the target's mechanism, as observed rows alone would have it,
        foretold what came out of experiments.

        Args:
            buffer: all rows; one informs every variable that was not set in it.
            graphs: to choose among.
            target: the variable whose outcomes will be asked for.
            key: of everything drawn.
            ranges: of the variables that may be set.
            log_weights: what each graph counts before experiments speak; None: all the same.
        """
        scaling, names = Scaling.of(buffer), tuple(buffer.get_variable_names())
        values, mask = buffer.rows()
        values = scaling.apply(values)
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        t, settable = names.index(target), [names.index(name) for name in ranges]
        usual = _usual(values, mask, scaling, names, ranges)
        causes = sorted({(t, _parents(graph, t)) for graph in graphs})
        slots = _slots(causes)
        foretold = _foretold(
            _functions(causes, values, mask, slots, usual), causes, values, mask, _waves(slots)
        )
        weights = np.array([foretold[_parents(graph, t)] for graph in graphs])
        if log_weights is not None:
            weights = weights + log_weights
        graphs = graphs[resample(weights, N_MEMBERS, rng)]
        schedule = _schedule(graphs, t, settable)
        slots = max(slots, _slots(schedule.distinct))
        waves = _waves(slots)
        functions = _functions(schedule.distinct, values, mask, slots, usual)
        posterior = _posterior(functions, schedule.distinct, values, mask, waves)
        steps = schedule.node.shape[1]
        normals = rng.normal(size=(len(graphs), steps, smooth.n_basis(slots)))
        mean, root = posterior.mean[schedule.function], posterior.root[schedule.function]
        draws = mean + np.einsum("msab,msb->msa", root, normals)
        observed = values[~mask.any(axis=1)]
        picked = rng.choice(len(observed), N_ROWS, replace=len(observed) < N_ROWS)
        last = [int(np.flatnonzero(nodes == t)[-1]) for nodes in schedule.node]
        noise = np.asarray(functions.scales.noise)[schedule.function[np.arange(len(graphs)), last]]
        unmoved = np.zeros((len(graphs), N_ROWS))
        model = cls(
            names,
            scaling,
            target,
            observed[picked],
            schedule,
            functions,
            draws,
            waves,
            noise,
            unmoved,
        )
        nothing = Candidates.of([{}], names)
        overall = model._follow(nothing, _thinned(observed, _MOST_ROWS))[0].mean(axis=-1)
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
        levels = self._follow(Candidates.of([intervention], self.variables), self.rows)
        means, t = self._adjusted(levels)[0], self.variables.index(self.target)
        within = float(levels[0].var(axis=-1).mean() + np.square(self.noise).mean())
        std = self.scaling.stds[t]
        return (
            float(means.mean() * std + self.scaling.means[t]),
            float(means.std() * std),
            float(np.sqrt(means.var() + within) * std),
        )

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
        room, wide = bucket(n, 64, 4) if n > 1 else 1, bucket(d, 8)
        is_set, level = np.zeros((room, wide), dtype=bool), np.zeros((room, wide))
        unit = candidates.standardised(self.scaling)
        for slot in range(candidates.columns.shape[1]):
            on = np.flatnonzero(candidates.there[:, slot])
            is_set[on, candidates.columns[on, slot]] = True
            level[on, candidates.columns[on, slot]] = unit[on, slot]
        # A step without a mechanism writes into a column that nobody reads.
        node = np.where(self.schedule.node < d, self.schedule.node, wide)
        found = _follow_rows(
            jnp.asarray(is_set),
            jnp.asarray(level, jnp.float32),
            jnp.asarray(pad(rows, len(rows), wide), jnp.float32),
            jnp.asarray(node),
            jax.tree.map(lambda leaf: _single(leaf[self.schedule.function]), self.functions),
            jnp.asarray(self.draws, jnp.float32),
            jnp.asarray(self.waves, jnp.float32),
            self.variables.index(self.target),
        )
        return np.asarray(found, dtype=np.float64)[:n]


def _slots(mechanisms: Sequence[tuple[int, tuple[int, ...]]]) -> int:
    """Room for the parents of each mechanism: few sizes, as each is compiled, none too large."""
    most = max(len(parents) for _, parents in mechanisms)
    return max(most, 2) if most <= 4 else most + most % 2


def _waves(slots: int) -> np.ndarray:
    """Always the same frequencies and phases; see `smooth_mechanisms.basis`."""
    waves = np.random.default_rng(0).normal(size=(smooth.N_FEATURES, slots + 1))
    waves[:, -1] = np.random.default_rng(1).random(smooth.N_FEATURES)
    return waves


def _parents(graph: np.ndarray, node: int) -> tuple[int, ...]:
    return tuple(np.flatnonzero(graph[:, node]).tolist())


def _foretold(
    functions: _Functions,
    distinct: list[tuple[int, tuple[int, ...]]],
    values: np.ndarray,
    mask: np.ndarray,
    waves: np.ndarray,
) -> dict[tuple[int, ...], float]:
    """Log-densities of what experiments gave, by the parents in each mechanism of one variable."""
    node = distinct[0][0]
    tried = np.flatnonzero(mask.any(axis=1) & ~mask[:, node])
    kept = np.concatenate([np.flatnonzero(~mask.any(axis=1)), _thinned(tried, _FORETOLD)])
    rows = bucket(len(kept), 64)
    x, y = pad(values[kept], rows), pad(values[kept, node], rows)
    is_row, is_new = np.arange(rows) < len(kept), pad(mask[kept].any(axis=1), rows)
    found = {}
    with double():
        for i, (_, parents) in enumerate(distinct):
            columns, *own = jax.tree.map(lambda leaf, i=i: leaf[i], tuple(functions))
            log_density = smooth.log_predictive(x[:, columns], y, is_row, is_new, *own, waves)
            found[parents] = float(log_density)
    return found


def _schedule(graphs: np.ndarray, target: int, settable: Sequence[int]) -> _Schedule:
    """The mechanisms between what may be set and the target; nothing else can move."""
    steps: list[list[tuple[int, tuple[int, ...]]]] = []
    for graph in graphs:
        wanted = ancestors(graph, target)
        reached = np.atleast_1d(reachable(graph)[list(settable)].any(axis=0))
        own = [
            (int(node), _parents(graph, node))
            for node in topological_order(graph)
            if node == target or (wanted[node] and reached[node])
        ]
        steps.append(own)
    distinct = sorted({step for own in steps for step in own})
    place = {step: i for i, step in enumerate(distinct)}
    length = bucket(max(len(own) for own in steps), 2)
    node = np.full((len(graphs), length), graphs.shape[1])
    function = np.zeros((len(graphs), length), dtype=int)
    for m, own in enumerate(steps):
        node[m, : len(own)] = [step[0] for step in own]
        function[m, : len(own)] = [place[step] for step in own]
    return _Schedule(node, function, distinct)


def _usual(
    values: np.ndarray,
    mask: np.ndarray,
    scaling: Scaling,
    names: tuple[str, ...],
    ranges: Mapping[str, tuple[float, float]],
) -> np.ndarray:
    """Between which standardised values ``[n_vars, 2]`` most observed ones lie, or may be set."""
    observed = values[~mask.any(axis=1)]
    ends = np.asarray(np.quantile(observed, (_RARE, 1.0 - _RARE), axis=0).T)
    for name, limits in ranges.items():
        i = names.index(name)
        unit = (np.asarray(limits) - scaling.means[i]) / scaling.stds[i]
        ends[i] = min(ends[i, 0], unit[0]), max(ends[i, 1], unit[1])
    return ends


def _functions(
    distinct: list[tuple[int, tuple[int, ...]]],
    values: np.ndarray,
    mask: np.ndarray,
    slots: int,
    usual: np.ndarray,
) -> _Functions:
    room = len(distinct)
    columns = np.zeros((room, slots), dtype=int)
    there = np.zeros((room, slots), dtype=bool)
    scales, centre, half = [], np.zeros((room, slots)), np.ones((room, slots))
    low, high = np.full((room, slots), -1.0), np.ones((room, slots))
    bent = smooth.bend(values, *usual.T)
    for i, (node, parents) in enumerate(distinct):
        k = len(parents)
        columns[i, :k], there[i, :k] = parents, True
        chosen = _learn_from(mask, node)
        low[i, :k], high[i, :k] = usual[list(parents)].T
        x, y = values[chosen][:, parents], values[chosen, node]
        own = smooth.learn_scales(x, y, slots, low[i, :k], high[i, :k])
        scales.append(own)
        reached = bent[:, parents]
        first = np.minimum(reached.min(axis=0), low[i, :k])
        last = np.maximum(reached.max(axis=0), high[i, :k])
        centre[i, :k] = (first + last) / 2
        half[i, :k] = (last - first) / 2 + _REACH * own.lengths[:k]
    stacked: smooth.Scales = jax.tree.map(lambda *leaves: np.stack(leaves), *scales)
    domain = smooth.Domain(*_any(centre, half, low, high))
    arrays: list[Any] = [columns, there, stacked, domain]
    return _Functions(*arrays)


def _learn_from(mask: np.ndarray, node: int) -> np.ndarray:
    """Positions of the rows from which a mechanism's scales are learned.

    They change with every tenth experiment only, so that what was learned can be kept.
    """
    tried = mask.any(axis=1)
    every = np.flatnonzero(tried & ~mask[:, node])
    experiments = _thinned(every[: len(every) // _EVERY * _EVERY], _TRIED)
    observed = np.flatnonzero(~tried)
    spare = smooth.LEARN_FROM - len(experiments)
    return np.concatenate([_thinned(observed, spare), experiments])


def _thinned(rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the rows, evenly spread."""
    if len(rows) <= most:
        return rows
    return np.asarray(rows[np.linspace(0, len(rows) - 1, most).astype(int)])


def _posterior(
    functions: _Functions,
    distinct: list[tuple[int, tuple[int, ...]]],
    values: np.ndarray,
    mask: np.ndarray,
    waves: np.ndarray,
) -> smooth.Weights:
    rows = bucket(len(values), 64)
    padded, is_row = pad(values, rows), pad(~mask, rows)
    found = []
    with double():
        for i, (node, _) in enumerate(distinct):
            columns, *own = jax.tree.map(lambda leaf, i=i: leaf[i], tuple(functions))
            found.append(
                smooth.fit_weights(
                    padded[:, columns], padded[:, node], is_row[:, node], *own, waves
                )
            )
    stacked: smooth.Weights = jax.tree.map(lambda *leaves: np.stack(leaves), *found)
    return stacked


@jax.jit
def _follow_rows(
    is_set: jax.Array,
    level: jax.Array,
    rows: jax.Array,
    node: jax.Array,
    functions: _Functions,
    draws: jax.Array,
    waves: jax.Array,
    target: jax.Array,
) -> jax.Array:
    """See `SmoothOutcomeModel._follow`; the target's own noise is left out."""

    def member(nodes: jax.Array, own: _Functions, weights: jax.Array) -> jax.Array:
        observed = jnp.pad(rows, ((0, 0), (0, 1)))
        wide = jnp.pad(is_set, ((0, 0), (0, 1)))
        start = jnp.where(
            wide[:, None, :], jnp.pad(level, ((0, 0), (0, 1)))[:, None, :], observed[None]
        )

        def step(now: jax.Array, of_step: tuple[Any, ...]) -> tuple[jax.Array, None]:
            j, (columns, there, scales, domain), w = of_step

            def value(x: jax.Array) -> jax.Array:
                return smooth.evaluate(x[..., columns], w, there, scales, domain, waves)

            there_now = value(now)
            moved = there_now + (observed[:, j] - value(observed))[None]
            moved = jnp.where(j == target, there_now, moved)
            column = jnp.where(wide[:, None, j], now[..., j], moved)
            here = jnp.arange(now.shape[-1]) == j
            return jnp.where(here, column[..., None], now), None

        now, _ = jax.lax.scan(step, start, (nodes, own, weights))
        return now[..., target]

    found: jax.Array = jax.lax.map(lambda own: member(*own), (node, functions, draws))
    return jnp.moveaxis(found, 0, 1)


def _any(*arrays: np.ndarray) -> list[Any]:
    """Arrays of the host for fields that JAX reads as its own."""
    return list(arrays)


def _single(leaf: np.ndarray) -> jax.Array:
    """Floats in float32, whole numbers and truth values as they are."""
    array = np.asarray(leaf)
    return jnp.asarray(array, jnp.float32 if array.dtype.kind == "f" else None)
