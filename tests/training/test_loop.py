"""The training loop: the same weights however often it is stopped."""

import json
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file

from causal_bayes_opt.core.random_systems import SystemDistribution
from causal_bayes_opt.errors import ConfigError, ModelError
from causal_bayes_opt.surrogate.network import TrainedModel, save_model
from causal_bayes_opt.surrogate.predictor import AmortizedModel, PredictorConfig
from causal_bayes_opt.surrogate.training import DesignDistribution, TrainingDistribution
from causal_bayes_opt.training import tuning
from causal_bayes_opt.training.checkpoints import log_step, seconds_trained
from causal_bayes_opt.training.configuration import (
    Stage,
    TrainingRun,
    read_policy_run,
    read_run,
)
from causal_bayes_opt.training.loop import train
from causal_bayes_opt.training.loop_config import LoopConfig
from causal_bayes_opt.training.sources import Simulated
from causal_bayes_opt.training.stages import train_run
from causal_bayes_opt.training.steps import make_optimizer

MODEL = AmortizedModel(PredictorConfig(hidden_dim=8, num_layers=1, num_heads=2, rank=2))
DATA = TrainingDistribution(
    (SystemDistribution(n_vars=(2, 3)),), DesignDistribution(n_obs=(8, 16), max_experiments=8)
)
CONFIG = LoopConfig(steps=8, batch_size=4, checkpoint_every=3)


class StopError(Exception):
    pass


def stop_at(step):
    def report(progress):
        if progress.step == step:
            raise StopError

    return report


def same(first, second):
    leaves = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return all(np.array_equal(a, b) for a, b in leaves)


def test_stopped_and_resumed_run_ends_with_the_same_weights(tmp_path):
    whole = train(MODEL, DATA, CONFIG)
    for step in (2, 5, 7):
        with pytest.raises(StopError):
            train(MODEL, DATA, CONFIG, tmp_path, stop_at(step))
    resumed = train(MODEL, DATA, CONFIG, tmp_path)
    assert same(whole, resumed)
    assert same(train(MODEL, DATA, CONFIG, tmp_path), resumed)  # nothing left to do
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert set(steps) == set(range(8))


def test_seconds_of_all_processes_are_counted(tmp_path):
    inside = tmp_path / "stage-1"
    inside.mkdir()
    for folder, told in ((tmp_path, (1.5, 2.0, 0.5, 3.0)), (inside, (4.0,))):
        lines = [json.dumps({"step": i, "seconds": s}) for i, s in enumerate(told)]
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert seconds_trained(tmp_path) == 2.0 + 3.0 + 4.0
    assert seconds_trained(tmp_path / "none") == 0.0


def test_a_line_that_was_cut_off_is_no_obstacle(tmp_path):
    file = tmp_path / "metrics.jsonl"
    whole = json.dumps({"step": 0, "seconds": 1.5}) + "\n"
    file.write_text(whole + '{"step": 1, "sec')
    assert seconds_trained(tmp_path) == 1.5
    log_step(tmp_path, 1, {"loss": 0.5}, 2.0, None)
    assert file.read_text() == whole + json.dumps({"step": 1, "seconds": 2.0, "loss": 0.5}) + "\n"


def test_stages_hand_on_their_weights_and_end_when_they_are_good_enough(tmp_path):
    easy = Stage(DATA, steps=8, promote_at=100.0)
    hard = Stage(DATA, steps=8, promote_at=0.0)
    run = TrainingRun("run", MODEL, DATA, CONFIG, stages=(easy, hard))
    with pytest.raises(StopError):
        train_run(
            run, tmp_path, lambda name, progress: stop_at(3)(progress) if name == "run" else None
        )
    params = train_run(run, tmp_path)

    def steps(folder):
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        return len({json.loads(line)["step"] for line in lines})

    # The first stage is left at its first check; no loss falls to 0.
    assert [steps(tmp_path / "stage-1"), steps(tmp_path / "stage-2"), steps(tmp_path)] == [1, 8, 8]
    assert same(train_run(run, tmp_path / "again"), params)
    assert not same(train_run(TrainingRun("run", MODEL, DATA, CONFIG), tmp_path / "no"), params)


def test_a_run_may_begin_with_a_smaller_network(tmp_path):
    small = AmortizedModel(replace(MODEL.config, nonlinear=True))
    params = small.init(jax.random.key(5))
    start = str(save_model(TrainedModel("small", small, params, {}), tmp_path / "small"))
    larger = AmortizedModel(replace(small.config, stream=2))
    still = replace(CONFIG, steps=1, learning_rate=1e-30, weight_decay=0.0)
    found = train_run(TrainingRun("larger", larger, DATA, still, start), tmp_path / "run")
    # But for the rounding of the running mean.
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-6),
        {module: found[module] for module in params},
        params,
    )
    added = {module.split("/")[-1] for module in set(found) - set(params)}
    assert added == {"stream_in", "stream_out", "embed_stream"}
    wider = AmortizedModel(replace(small.config, hidden_dim=16))
    with pytest.raises(ModelError, match="has no place"):
        train_run(TrainingRun("wider", wider, DATA, still, start), tmp_path / "wider")


def test_another_seed_gives_other_weights():
    assert not same(train(MODEL, DATA, CONFIG), train(MODEL, DATA, replace(CONFIG, seed=1)))


def test_folder_of_another_run_is_refused_and_left_alone(tmp_path):
    train(MODEL, DATA, CONFIG, tmp_path)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    with pytest.raises(ModelError, match=r"another configuration \(loop differ\)"):
        train(MODEL, DATA, LoopConfig(steps=9, batch_size=4), tmp_path)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


def test_half_written_checkpoint_is_not_read(tmp_path):
    whole = train(MODEL, DATA, CONFIG)
    with pytest.raises(StopError):
        train(MODEL, DATA, CONFIG, tmp_path, stop_at(4))
    (tmp_path / "checkpoint.partial").write_bytes(b"cut off")
    assert same(train(MODEL, DATA, CONFIG, tmp_path), whole)


def test_loss_that_is_not_finite_stops_with_the_step():
    broken = LoopConfig(steps=50, batch_size=4, learning_rate=1e30, warmup_steps=1, clip_norm=1e30)
    with pytest.raises(
        ConfigError, match=r"the loss is (nan|inf) at step \d+ \(batch seed 1/\d+\)"
    ):
        train(MODEL, DATA, broken)


@pytest.mark.parametrize("bad", [{"steps": 0}, {"learning_rate": 0.0}, {"ema_decay": 1.0}])
def test_impossible_configuration_is_refused(bad):
    with pytest.raises(ConfigError):
        LoopConfig(**bad)


@pytest.mark.parametrize("shares", [0.5, "ab", ["a", 1], [1.0], [1.0, 0.0]])
def test_impossible_shares_in_a_file_are_refused(tmp_path, shares):
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"systems": [{}, {}], "shares": shares}))
    with pytest.raises(ConfigError, match="shares"):
        read_run(path)


def test_run_that_starts_from_other_weights(tmp_path):
    first = train(MODEL, DATA, LoopConfig(steps=8, stop_after=3, batch_size=4, checkpoint_every=3))
    second = train(MODEL, DATA, CONFIG, tmp_path, start=first)
    assert not same(second, train(MODEL, DATA, CONFIG))
    with pytest.raises(ModelError, match=r"another configuration \(start differ\)"):
        train(MODEL, DATA, CONFIG, tmp_path)


def test_run_that_stops_early_is_the_beginning_of_the_whole_run(tmp_path):
    whole = []
    train(MODEL, DATA, CONFIG, report=lambda done: whole.append(done.loss))
    part = []
    stopped = LoopConfig(**{**vars(CONFIG), "stop_after": 5})
    train(MODEL, DATA, stopped, report=lambda done: part.append(done.loss))
    assert part == whole[:5]


def test_training_ends_when_validation_no_longer_improves():
    losses = iter([3.0, 2.0, 2.5, 2.5, 1.0])
    weights, seen = [], []

    def validate(params):
        weights.append(params)
        return next(losses)

    config = replace(CONFIG, validate_every=1, patience=2)
    best = train(MODEL, DATA, config, report=seen.append, validate=validate)
    assert [done.validation for done in seen] == [3.0, 2.0, 2.5, 2.5]
    assert same(best, weights[1])


def test_loss_that_diverges_stops_with_the_step():
    broken = replace(CONFIG, steps=50, learning_rate=30.0, warmup_steps=1, divergence=0.5)
    with pytest.raises(ConfigError, match=r"the loss (diverges|is nan).* at step \d+"):
        train(MODEL, DATA, broken)


@dataclass(frozen=True)
class Faulty(Simulated):
    """Simulated systems whose loss is not a number at steps 2, 5 and 6."""

    def batches(self, place):
        for after, _ in super().batches(place):
            yield after, jnp.asarray(after.batch - 1)

    def loss(self, model, params, batch, key):
        loss, parts = super().loss(model, params, batch, key)
        return loss * jnp.where(jnp.isin(batch, jnp.asarray([2, 5, 6])), jnp.nan, 1.0), parts


@pytest.mark.parametrize(("passed_over", "last"), [(1, 6), (2, 7)])
def test_losses_that_are_no_numbers_are_passed_over_as_often_as_allowed(
    passed_over, last, tmp_path
):
    config = replace(CONFIG, checkpoint_every=1, max_consecutive_errors=passed_over)
    with nullcontext() if last == 7 else pytest.raises(ConfigError, match=f"nan at step {last} "):
        train(MODEL, Faulty(DATA, 4), config, tmp_path)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert np.flatnonzero(np.isnan(losses)).tolist() == [at for at in (2, 5, 6) if at < len(losses)]
    kept = load_file(tmp_path / "checkpoint.safetensors")
    weights = {name: values for name, values in kept.items() if "best_loss" not in name}
    assert all(np.isfinite(values).all() for values in weights.values())
    assert int(kept[".step"]) == (8 if last == 7 else last)


def test_a_loss_that_is_no_number_is_passed_over_where_gradients_are_averaged():
    config = replace(CONFIG, accumulation=2, max_consecutive_errors=1, learning_rate=0.1)
    optimizer = make_optimizer(config)
    params = {"w": jnp.ones(2)}
    state = optimizer.init(params)
    for step in range(8):
        gradient = {"w": jnp.full(2, jnp.nan if step == 2 else 1.0)}
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    assert (params["w"] < 1.0).all()


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("max_consecutive_errors", 1.5, "a whole number, not 1.5"),
        ("steps", "many", "a whole number, not 'many'"),
        ("learning_rate", None, "a number, not None"),
    ],
)
def test_run_file_with_other_numbers_is_refused_by_name(key, value, told, tmp_path):
    run = json.loads((Path(__file__).parents[2] / "configs" / "mixed-v1.json").read_text())
    run["loop"][key] = value
    (tmp_path / "run.json").write_text(json.dumps(run))
    with pytest.raises(ConfigError, match=f"loop: {key} must be {told}"):
        read_run(tmp_path / "run.json")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"stages": 5}, "stages must be a list"),
        ({"stages": [{"systems": [{}], "steps": True}]}, "steps must be a whole number"),
        ({"stages": [{"systems": [{}], "steps": 2, "promote_at": "low"}]}, "promote_at must be"),
        ({"start": 5}, "start must be the name or path of a model, not 5"),
        ({"systems": [{"n_vars": [3]}]}, "systems: not enough values"),
        ({"network": {"hidden_dim": 0}}, "hidden_dim, num_layers and num_heads must be at least 1"),
        ({"network": {"hidden_dim": 10, "num_heads": 4}}, "it must divide hidden_dim, 10"),
        ({"loop": {"clip_norm": 0.0}}, "clip_norm must be positive"),
        ({"loop": {"warmup_steps": -1}}, "warmup_steps cannot be negative"),
    ],
)
def test_run_file_with_impossible_values_is_refused_by_name(change, told, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"systems": [{}], **change}))
    with pytest.raises(ConfigError, match=told):
        read_run(tmp_path / "run.json")


@pytest.mark.parametrize("n_starts", ["many", None, 2.5, -3])
def test_policy_run_needs_a_number_of_starts(n_starts, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"n_starts": n_starts}))
    with pytest.raises(ConfigError, match="n_starts"):
        read_policy_run(tmp_path / "run.json")


def test_tuning_goes_on_with_its_study(tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    monkeypatch.setattr(tuning, "_WIDTHS", (8, 16))
    monkeypatch.setattr(tuning, "_DEPTHS", (1, 2))
    monkeypatch.setattr(tuning, "_BATCH_SIZES", (4, 8))
    run = TrainingRun("tiny", MODEL, DATA, CONFIG)
    seen = []

    def report(number, loss, options):
        seen.append((number, loss, options))

    tuning.tune(run, tmp_path, 1, 2, report)
    best = tuning.tune(run, tmp_path, 2, 2, report)
    assert [number for number, _, _ in seen] == [0, 1]
    assert best["loss"] == pytest.approx(min(loss for _, loss, _ in seen))
    assert json.loads((tmp_path / "best.json").read_text()) == best
    tuning.tune(run, tmp_path, 2, 2, report)
    assert len(seen) == 2
