"""Verdicts on what the long measurements give: the scaling study, transfer, cost."""

import pytest

from causal_bayes_opt.training.criteria import ValidationCriteria
from causal_bayes_opt.training.verdicts import week_4

SPEED = {"failures": {"amortized": []}, "systems": 30, "trials": 5}
COST = {
    "seconds": 100.0,
    "saved_seconds_per_graph": 0.1,
    "not_recorded": [],
    "break_even": {"value": 1000.0, "low": 900.0, "high": 1100.0},
}


def scaling(low, high):
    """A study as `measure_scaling` gives it."""
    return {
        "curve": [
            {"demonstrations": 1000, "steps": 612, "seconds": 10.0},
            {"demonstrations": 5000, "steps": 632, "seconds": 11.0},
        ],
        "compared": [1000, 5000],
        "gain": {"value": (low + high) / 2, "low": low, "high": high},
        "seconds": 20.0,
        "shared_systems": 0,
    }


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-0.5, -0.1, "go"), (0.1, 0.5, "no-go"), (-0.1, 0.1, "undecided")],
)
def test_more_demonstrations_are_judged_by_their_interval(low, high, expected):
    found = week_4(ValidationCriteria(), None, scaling(low, high), SPEED, COST)[1]
    assert found.verdict == expected
    assert "632 and 612 steps" in found.note


def test_what_was_not_measured_is_undecided():
    found = week_4(ValidationCriteria(), None, None, SPEED, COST)
    assert [criterion.verdict for criterion in found[:2]] == ["undecided", "undecided"]
