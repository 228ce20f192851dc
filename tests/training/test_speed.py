"""How studies are timed, and the pace of the recorded public runs with which ours is compared."""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from causal_bayes_opt.acquisition import mechanism_scales
from causal_bayes_opt.surrogate import support
from causal_bayes_opt.surrogate.exact import exact_posterior
from causal_bayes_opt.training import speed
from causal_bayes_opt.training.speed import RECORDED_TRIAL_SECONDS

RECORDS = (Path(__file__).parents[1] / "expert" / "data").glob("*.json")


def test_recorded_trials_take_what_the_records_say():
    seconds = defaultdict(list)
    for path in RECORDS:
        record = json.loads(path.read_text())
        seconds[record["n"]].append(record["cpu_s"] / record["T"])
    means = {n: np.mean(found) for n, found in seconds.items()}
    assert means == pytest.approx(RECORDED_TRIAL_SECONDS, abs=0.05)


def test_what_is_timed_was_not_answered_before(monkeypatch):
    """The study that counts finds programs that are compiled, and no answer that is kept."""
    rows = np.random.default_rng(0).normal(size=(30, 3))
    known = []

    def study(*_):
        before = mechanism_scales._remembered.cache_info(), support._summarised.cache_info()
        known.append(sum(info.currsize for info in before))
        mechanism_scales.learn_scales(
            mechanism_scales.Rows.of(rows[:, :1], rows[:, 1]), 2, -np.ones(1), np.ones(1)
        )
        support.summarise(rows)
        return speed.Study(0.0, 0.0)

    support.summarise(rows)
    monkeypatch.setattr(speed, "_amortized_study", study)
    speed.amortized_study(None, exact_posterior, 1, 0)  # type: ignore[arg-type]
    assert known[0] > 0
    assert known[1] == 0
