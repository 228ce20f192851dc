"""From training to use: train a system whole, and put what was trained into a study."""

from __future__ import annotations

from collections.abc import Callable

import haiku as hk

from causal_bayes_opt.acquisition.pipeline import ACBOPipeline
from causal_bayes_opt.acquisition.policy import Policy, expected_improvement
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.surrogate.predictor import AmortizedModel
from causal_bayes_opt.training.amortized_models import MinimalTrainingConfig, train_amortized_model
from causal_bayes_opt.training.data_generation import MinimalDatasetGenerator
from causal_bayes_opt.training.integration import create_amortized_surrogate_update_fn
from causal_bayes_opt.training.validation import (
    ValidationConfig,
    ValidationReport,
    validate_amortization_benefit,
)

__all__ = ["ACBOPipeline", "deploy_trained_system", "train_amortized_system"]


def train_amortized_system(
    generator: MinimalDatasetGenerator | None = None,
    config: MinimalTrainingConfig | None = None,
    validation: ValidationConfig | None = None,
    judged: Callable[[ValidationReport], None] | None = None,
) -> tuple[AmortizedModel, hk.Params]:
    """Generate demonstrations, train on them, and judge the result beside the expert.

    Args:
        generator: of demonstrations; None: the minimal dataset of 960.
        config: of the training; None: its defaults.
        validation: of the judge; None: its defaults, which take minutes.
        judged: called with the judge's report.
    """
    demonstrations = (generator or MinimalDatasetGenerator()).generate_training_dataset()
    model, params = train_amortized_model(demonstrations, config)
    report = validate_amortization_benefit(model, params, validation)
    if judged is not None:
        judged(report)
    return model, params


def deploy_trained_system(
    model: AmortizedModel,
    params: hk.Params,
    *,
    policy: Policy = expected_improvement,
    seed: int = 0,
) -> ACBOPipeline:
    """Return a pipeline with a trained model as its surrogate; `begin` gives it problem and rows.

    Args:
        model: the network.
        params: its weights.
        policy: what chooses experiments.
        seed: of the policy.
    """
    update = create_amortized_surrogate_update_fn(model, params)
    return ACBOPipeline(update, policy, ExperienceBuffer(), seed=seed)
