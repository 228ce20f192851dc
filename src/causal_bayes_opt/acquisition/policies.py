"""Policies by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from causal_bayes_opt.acquisition.baselines import random_choice, random_over_parents
from causal_bayes_opt.acquisition.learned import DEFAULT_POLICY, LearnedPolicy
from causal_bayes_opt.acquisition.policy import Policy, expected_improvement, thompson_sampling
from causal_bayes_opt.errors import check_name

POLICIES: Mapping[str, Policy] = MappingProxyType(
    {
        "auto": expected_improvement,
        "expected_improvement": expected_improvement,
        "thompson_sampling": thompson_sampling,
        DEFAULT_POLICY: LearnedPolicy(),
        "random": random_choice,
        "random_over_parents": random_over_parents,
    }
)
"""All policies that need nothing but a state. ``"auto"`` is the one that wins in docs/regret.md."""


def policy_named(name: str) -> Policy:
    """The policy of a name; `UnknownNameError` with the nearest name otherwise."""
    check_name(name, POLICIES, "policy")
    return POLICIES[name]
