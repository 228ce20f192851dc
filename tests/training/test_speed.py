"""The pace of the recorded public runs, with which ours is compared."""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from causal_bayes_opt.training.speed import RECORDED_TRIAL_SECONDS

RECORDS = (Path(__file__).parents[1] / "expert" / "data").glob("*.json")


def test_recorded_trials_take_what_the_records_say():
    seconds = defaultdict(list)
    for path in RECORDS:
        record = json.loads(path.read_text())
        seconds[record["n"]].append(record["cpu_s"] / record["T"])
    means = {n: np.mean(found) for n, found in seconds.items()}
    assert means == pytest.approx(RECORDED_TRIAL_SECONDS, abs=0.05)
