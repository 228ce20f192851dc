"""Training in processes of its own: killed, on several devices, by several processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

_SHARDED = """
import jax, numpy as np, sys
from causal_bayes_opt.core.random_systems import SystemDistribution
from causal_bayes_opt.surrogate.predictor import AmortizedModel, PredictorConfig
from causal_bayes_opt.surrogate.training import DesignDistribution, TrainingDistribution
from causal_bayes_opt.training.loop import train
from causal_bayes_opt.training.loop_config import LoopConfig
from causal_bayes_opt.training.parallel import data_mesh
assert jax.device_count() == 8
model = AmortizedModel(PredictorConfig(8, 1, 2, 2))
data = TrainingDistribution(
    (SystemDistribution(n_vars=(2, 3)),), DesignDistribution(n_obs=(8, 16), max_experiments=8)
)
for mesh in (None, data_mesh(8)):
    losses = []
    train(model, data, LoopConfig(steps=3, batch_size=16), mesh=mesh,
          report=lambda done: losses.append(done.loss))
    print(*losses)
"""


def test_eight_devices_give_the_loss_of_one():
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    found = subprocess.run(
        [sys.executable, "-c", _SHARDED],
        env={**os.environ, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    one, eight = ([float(loss) for loss in line.split()] for line in found[-2:])
    assert len(one) == 3
    np.testing.assert_allclose(one, eight, rtol=1e-4)


CONFIGURATION = {
    "name": "tiny",
    "network": {"hidden_dim": 8, "num_layers": 1, "num_heads": 2, "rank": 2},
    "systems": [{"n_vars": [2, 3]}],
    "design": {"n_obs": [8, 16], "max_experiments": 8},
    "loop": {"steps": 24, "batch_size": 4, "checkpoint_every": 1},
}


def start(folder, *options):
    config = folder.parent / "run.json"
    config.write_text(json.dumps(CONFIGURATION))
    command = [sys.executable, "-m", "causal_bayes_opt.cli", "train", "--config", str(config)]
    return subprocess.Popen(
        [*command, "--out", str(folder), *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def weights(folder):
    return load_file(folder / "tiny.safetensors")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training") / "whole"
    assert start(folder).wait() == 0
    return weights(folder)


def test_killed_training_goes_on_to_the_same_weights_bit_for_bit(whole, tmp_path):
    killed = tmp_path / "killed"
    process = start(killed)
    metrics = killed / "metrics.jsonl"
    while process.poll() is None and not (
        metrics.exists() and len(metrics.read_text().splitlines()) > 5
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert start(killed).wait() == 0
    found = weights(killed)
    for name, value in whole.items():
        np.testing.assert_array_equal(value, found[name])


def test_two_processes_train_the_model_of_one(whole, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    folder = tmp_path / "two"
    processes = [
        start(folder, "--processes", "2", "--process", str(i), "--join", address) for i in range(2)
    ]
    assert [process.wait(timeout=240) for process in processes] == [0, 0]
    found = weights(folder)
    for name, value in whole.items():
        np.testing.assert_allclose(value, found[name], atol=1e-3)
