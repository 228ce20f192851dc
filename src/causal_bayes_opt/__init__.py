"""Amortized causal Bayesian optimization with an unknown graph."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from causal_bayes_opt.acquisition.pipeline import ACBOPipeline
    from causal_bayes_opt.acquisition.policy import Suggestion
    from causal_bayes_opt.acquisition.state import AcquisitionState
    from causal_bayes_opt.api import infer_parents, suggest
    from causal_bayes_opt.core.buffer import ExperienceBuffer
    from causal_bayes_opt.core.compiled import keep_compiled
    from causal_bayes_opt.core.intervention import Intervention, Problem, make_intervention
    from causal_bayes_opt.core.sample import sample, simulator
    from causal_bayes_opt.core.scm import SCM
    from causal_bayes_opt.errors import CausalBayesOptError
    from causal_bayes_opt.optimization import StudyResult, optimize, study
    from causal_bayes_opt.surrogate.network import load_pretrained
    from causal_bayes_opt.surrogate.posterior import ParentSetPosterior
    from causal_bayes_opt.surrogate.protocol import EdgePrior

__all__ = [
    "SCM",
    "ACBOPipeline",
    "AcquisitionState",
    "CausalBayesOptError",
    "EdgePrior",
    "ExperienceBuffer",
    "Intervention",
    "ParentSetPosterior",
    "Problem",
    "StudyResult",
    "Suggestion",
    "__version__",
    "infer_parents",
    "keep_compiled",
    "load_pretrained",
    "make_intervention",
    "optimize",
    "sample",
    "simulator",
    "study",
    "suggest",
]

__version__ = version("causal-bayes-opt")

# Names are fetched on first use (PEP 562): `acbo --help` needs no JAX, and the command line sets
# what NumPy's BLAS and JAX read at their first import before they are imported.
_HOMES = {
    "SCM": "core.scm",
    "ACBOPipeline": "acquisition.pipeline",
    "AcquisitionState": "acquisition.state",
    "CausalBayesOptError": "errors",
    "EdgePrior": "surrogate.protocol",
    "ExperienceBuffer": "core.buffer",
    "Intervention": "core.intervention",
    "ParentSetPosterior": "surrogate.posterior",
    "Problem": "core.intervention",
    "StudyResult": "optimization",
    "Suggestion": "acquisition.policy",
    "infer_parents": "api",
    "keep_compiled": "core.compiled",
    "load_pretrained": "surrogate.network",
    "make_intervention": "core.intervention",
    "optimize": "optimization",
    "sample": "core.sample",
    "simulator": "core.sample",
    "study": "optimization",
    "suggest": "api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
