"""`acbo generate` and `acbo dataset`: what is refused, in one line and before any work."""

import numpy as np
import pytest

from causal_bayes_opt import cli
from causal_bayes_opt.core.random_systems import SystemDistribution, random_scm
from causal_bayes_opt.core.sample import sample


def run(capsys, *arguments):
    status = cli.main(list(arguments))
    return status, capsys.readouterr()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--systems", "-3"], "--systems is -3; it must be at least 1"),
        (["--trials", "0"], "demonstrations_per_graph is 0"),
        (["--sizes", "8-3"], "'8-3' is no range such as 3-8"),
        (["--sizes", "90-101"], "no network takes more than 100 variables"),
        (["--families", "scale-free"], "did you mean 'scale_free'?"),
        (["--mechanisms", "linaer"], "did you mean 'linear'?"),
        (["--noises", "gauss"], "did you mean 'gaussian'?"),
        (["--scaling", "iscmm"], "did you mean 'iscm'?"),
        (["--teacher", "exat"], "did you mean 'exact'?"),
        (["--mean-parents", "4"], "mean_parents is 4; a graph of 3 variables holds"),
        (["--weights", "2", "1"], "weights is (2, 1)"),
        (["--engine", "ry"], "did you mean 'ray'?"),
        (["--workers", "2"], "belong to --engine ray"),
        (["--systems", "101"], "needs a validation report"),
        (["--systems", "101", "--report", "/nowhere.json"], "is no validation report"),
    ],
)
def test_generate_refuses_before_any_work(capsys, tmp_path, options, message):
    folder = tmp_path / "data"
    status, printed = run(capsys, "generate", "--out", str(folder), *options)
    assert status == 2
    lines = [line for line in printed.err.splitlines() if line.startswith("acbo: error")]
    assert len(lines) == 1
    assert message in lines[0]
    assert not folder.exists()


def test_generate_and_digest(capsys, tmp_path):
    folder = str(tmp_path / "data")
    options = ("--teacher", "truth", "--sizes", "3", "--systems", "4")
    assert run(capsys, "generate", "--out", folder, *options)[0] == 0
    status, printed = run(capsys, "dataset", "digest", folder)
    assert status == 0
    assert len(printed.out.strip()) == 64
    again = run(capsys, "dataset", "digest", folder)[1].out
    assert again == printed.out
    status, printed = run(capsys, "generate", "--out", folder, *options, "--seed", "1")
    assert status == 2
    assert "seed: 0 there, 1 asked" in printed.err
    assert run(capsys, "dataset", "digest", folder)[1].out == again
    status, printed = run(capsys, "dataset", "digest", str(tmp_path))
    assert status == 2
    assert "is no dataset" in printed.err


@pytest.mark.parametrize("mechanism", ["linear", "sigmoid", "neural"])
def test_scaling_afterwards_is_a_change_of_units(mechanism):
    plain = SystemDistribution(mechanisms=(mechanism,), weights=(0.25, 1.0))
    scaled = SystemDistribution(mechanisms=(mechanism,), weights=(0.25, 1.0), scaling="after")
    for seed in range(3):
        first, second = (
            sample(random_scm(seed, 4, distribution), 3000, seed=1).to_numpy(dtype=float)
            for distribution in (plain, scaled)
        )
        # The units come from a pilot sample of 256 rows.
        np.testing.assert_allclose(second.std(axis=0), 1.0, atol=0.35)
        same = [(x - x.mean(axis=0)) / x.std(axis=0) for x in (first, second)]
        np.testing.assert_allclose(same[0], same[1], atol=1e-2)
