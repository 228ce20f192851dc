"""The amortized model under the names of the training interface."""

from causal_bayes_opt.surrogate.predictor import AmortizedModel, ParentSetPredictor, PredictorConfig
from causal_bayes_opt.training.loop import LoopConfig, train

__all__ = ["AmortizedModel", "LoopConfig", "ParentSetPredictor", "PredictorConfig", "train"]
