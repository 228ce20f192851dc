"""What is judged, on what, and by which thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from causal_bayes_opt.errors import ConfigError
from causal_bayes_opt.training.criteria import ValidationCriteria
from causal_bayes_opt.training.held_out import HeldOut
from causal_bayes_opt.training.scaling_study import ScalingStudy


@dataclass(frozen=True)
class ValidationConfig:
    """What is judged, on what, and by which thresholds.

    Attributes:
        systems: held-out systems.
        trials: of each study that is timed.
        studies: how many of the systems get a study; None: all.
        held_out: what they are like.
        criteria: thresholds.
        resamples: of every bootstrap.
        price_per_hour: money for an hour of this machine.
        spent: seconds that the model took, by the names of `cost_benefit.COSTS`; they count
            before those of its card.
        overlap_steps: of the training, whose systems are drawn again and compared.
        transfer_systems: for each condition of the transfer; 0 leaves transfer out.
        transfer_sizes: numbers of variables beyond those of `held_out`.
        scaling: the study of more demonstrations; None leaves it out.
    """

    systems: int = 200
    trials: int = 5
    studies: int | None = None
    held_out: HeldOut = field(default_factory=HeldOut)
    criteria: ValidationCriteria = field(default_factory=ValidationCriteria)
    resamples: int = 500
    price_per_hour: float = 0.5
    spent: Mapping[str, float] = field(default_factory=dict)
    overlap_steps: int = 300
    transfer_systems: int = 100
    transfer_sizes: tuple[tuple[int, ...], ...] = ((9, 10, 11, 12), (14, 16, 18, 20), (30, 40, 50))
    scaling: ScalingStudy | None = field(default_factory=ScalingStudy)

    def __post_init__(self) -> None:
        for name in ("systems", "trials", "studies", "resamples", "overlap_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1")
        if self.transfer_systems < 0:
            raise ConfigError(f"transfer_systems is {self.transfer_systems}; 0 is the least")
