"""PARENT_SCALE, the per-graph method that is to be amortized."""

from causal_bayes_opt.expert.options import ParentScaleOptions
from causal_bayes_opt.expert.parent_posterior import parent_scale_posterior, parent_scale_surrogate
from causal_bayes_opt.expert.parent_scale import PARENT_SCALE, init, observe, run_many, suggest
from causal_bayes_opt.expert.parent_update import replay
from causal_bayes_opt.expert.state import ParentScaleState

__all__ = [
    "PARENT_SCALE",
    "ParentScaleOptions",
    "ParentScaleState",
    "init",
    "observe",
    "parent_scale_posterior",
    "parent_scale_surrogate",
    "replay",
    "run_many",
    "suggest",
]
