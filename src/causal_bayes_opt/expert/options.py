"""What can be chosen about PARENT_SCALE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from causal_bayes_opt.errors import ConfigError, nearest
from causal_bayes_opt.expert.doubly_robust import N_BOOTSTRAPS, Regressor
from causal_bayes_opt.expert.parent_update import Noise, Predictive

# Their corners must leave room for other starts of the search.
MOST_TARGETS = 6

Mechanism = Literal["linear", "nonlinear"]
Support = Literal["votes", "all"]


@dataclass(frozen=True)
class ParentScaleOptions:
    """Options of PARENT_SCALE; the defaults correct the published algorithm.

    Attributes:
        mechanism: regressions of the posterior on the variables themselves, or on 100 random
            Fourier features of each set.
        regressor: behind the prior's votes; None takes least squares for linear mechanisms and
            the networks of the source for nonlinear ones.
        n_bootstraps: number of votes.
        support: ``"votes"`` keeps the sets that were voted for and drops for good what falls below
            1e-4, as published; ``"all"`` keeps every set, the empty one too.
        max_parents: largest set; None does not limit it.
        noise: ``"unit"`` has noise of variance 1 without an intercept, and GPs in the units of the
            data, as published; ``"learned"`` learns the noise, and no unit matters.
        predictive: ``"public"`` repeats a mistake of the public code; for comparisons alone.
        max_targets: how many variables may be set at once, up to 6; 1 as published.
        n_observations: rows drawn where a simulator is observed.
        n_experiments: initial experiments on each variable of a simulator.
        n_evaluations: outcomes of a simulator whose mean a trial's result is.
        patience: the run ends when so many trials brought no improvement; None never ends it early.
        min_improvement: what counts as one, in standard deviations of the target.
        progress: whether a bar shows how far the run is.

    Raises:
        ConfigError: a value that is not possible.
    """

    mechanism: Mechanism = "linear"
    regressor: Regressor | None = None
    n_bootstraps: int = N_BOOTSTRAPS
    support: Support = "all"
    max_parents: int | None = None
    noise: Noise = "learned"
    predictive: Predictive = "exact"
    max_targets: int = 1
    n_observations: int = 100
    n_experiments: int = 2
    n_evaluations: int = 1000
    patience: int | None = None
    min_improvement: float = 1e-3
    progress: bool = False

    def __post_init__(self) -> None:
        for name, known in (
            ("mechanism", get_args(Mechanism)),
            ("regressor", (*get_args(Regressor), None)),
            ("support", get_args(Support)),
            ("noise", get_args(Noise)),
            ("predictive", get_args(Predictive)),
        ):
            value = getattr(self, name)
            if value not in known:
                listed = ", ".join(map(repr, known))
                hint = nearest(value, [k for k in known if k])
                raise ConfigError(f"{name} is {value!r}; expected one of {listed}{hint}")
        for name, least in (
            ("n_bootstraps", 1),
            ("max_parents", 0),
            ("max_targets", 1),
            ("n_observations", 2),
            ("n_experiments", 0),
            ("n_evaluations", 1),
            ("patience", 1),
        ):
            value = getattr(self, name)
            optional = name in ("max_parents", "patience") and value is None
            if not optional and (not isinstance(value, int) or value < least):
                raise ConfigError(
                    f"{name} is {value!r}; expected a whole number of {least} or more"
                )
        if self.max_targets > MOST_TARGETS:
            raise ConfigError(
                f"max_targets is {self.max_targets}; "
                f"at most {MOST_TARGETS} variables can be set at once"
            )
        if not self.min_improvement >= 0:
            raise ConfigError(f"min_improvement is {self.min_improvement}; it cannot be negative")
        if self.predictive == "public" and (self.noise != "unit" or self.mechanism != "linear"):
            raise ConfigError(
                'predictive="public" repeats the linear code with noise of variance 1; it needs '
                'noise="unit" and mechanism="linear"'
            )

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> ParentScaleOptions:
        """Build from names and values; `ConfigError` with the nearest name for an unknown one."""
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                hint = nearest(name, known) or f" (known: {', '.join(known)})"
                raise ConfigError(f"unknown option {name!r}{hint}")
        return cls(**options)

    @classmethod
    def published(cls, **options: Any) -> ParentScaleOptions:
        """The options of the public linear code, its mistake in the predictive density included."""
        as_published = {
            "support": "votes",
            "noise": "unit",
            "predictive": "public",
            "regressor": "mlp",
        }
        return cls.of({**as_published, **options})
