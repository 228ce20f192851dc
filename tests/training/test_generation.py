"""Datasets: the same content however often the making was stopped, and on any engine."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from causal_bayes_opt.core.random_systems import SystemDistribution
from causal_bayes_opt.errors import ConfigError, GateError, StoreError, UnknownNameError
from causal_bayes_opt.surrogate.training import DesignDistribution
from causal_bayes_opt.training import generation
from causal_bayes_opt.training.curriculum import AdvancedCurriculumConfig, generate_stage
from causal_bayes_opt.training.data_generation import (
    MinimalDatasetGenerator,
    extract_expert_demonstrations,
)
from causal_bayes_opt.training.engines import RayEngine, engine_named
from causal_bayes_opt.training.generation import (
    digest_of,
    generate_dataset,
    plan_chunks,
    read_examples,
    read_generator,
)
from causal_bayes_opt.training.records import to_records, to_runs
from causal_bayes_opt.training.storage import DatasetStore

EXPERT = MinimalDatasetGenerator(
    graph_sizes=(3, 4), graphs_per_size=2, demonstrations_per_graph=2, seed=3
)
TRUTH = MinimalDatasetGenerator(
    graph_sizes=(3, 5),
    n_systems=9,
    teacher="truth",
    design=DesignDistribution(n_obs=(20, 40), max_experiments=16),
)
COMMAND = ["generate", "--teacher", "truth", "--sizes", "3-4", "--systems", "40"]


@pytest.fixture(scope="module")
def runs():
    return EXPERT._run(0, [0, 2])


def same(first, second):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.observational_data, b.observational_data)
        np.testing.assert_array_equal(a.interventional_data, b.interventional_data)
        np.testing.assert_array_equal(a.parent_posterior, b.parent_posterior)
        assert a.target_variable == b.target_variable
        assert a.graph_metadata["expert_sets"] == b.graph_metadata["expert_sets"]
        assert a.graph_metadata["true_parents"] == b.graph_metadata["true_parents"]
        assert a.graph_metadata["ranges"] == b.graph_metadata["ranges"]
        np.testing.assert_array_equal(
            a.graph_metadata["row_values"], b.graph_metadata["row_values"]
        )


def test_records_give_back_the_examples_bit_by_bit(runs):
    same(
        extract_expert_demonstrations(to_runs(to_records(runs))),
        extract_expert_demonstrations(runs),
    )


def test_stored_examples_are_those_of_the_runs(tmp_path):
    generate_dataset(EXPERT, tmp_path / "data")
    stored = read_examples(tmp_path / "data")
    fresh = EXPERT.generate_training_dataset()
    assert len(stored) == len(fresh) == 4 * 3
    by_seed = sorted(fresh, key=lambda e: (len(e.graph_metadata["variables"])))
    same(stored, by_seed)
    assert read_generator(DatasetStore.open(tmp_path / "data")) == EXPERT


def test_truth_examples_do_not_depend_on_the_chunk(tmp_path):
    generate_dataset(TRUTH, tmp_path / "data")
    stored = read_examples(tmp_path / "data")
    assert len(stored) == 9
    alone = TRUTH.records(0, [2])
    third = next(e for e in stored if e.graph_metadata["seed"] == alone.seed[0])
    values = alone.observed[0][~np.isnan(alone.observed[0, :, 0])]
    np.testing.assert_allclose(
        third.observational_data * alone.stds[0] + alone.means[0], values, atol=1e-4
    )
    for example in stored:
        names = example.graph_metadata["variables"]
        truth = [name in example.graph_metadata["true_parents"] for name in names]
        np.testing.assert_array_equal(example.parent_posterior, truth)


def test_damaged_chunk_is_named_and_made_again(tmp_path):
    store = generate_dataset(TRUTH, tmp_path)
    digest = store.digest()
    name = plan_chunks(TRUTH)[1].name
    file = tmp_path / name / "observed" / "c" / "0" / "0" / "0"
    file.write_bytes(b"nonsense")
    told = []
    generate_dataset(TRUTH, tmp_path, report=told.append)
    assert told[0].remade == (name,)
    assert told[0].systems < told[-1].systems == told[-1].of == 9
    assert digest_of(tmp_path) == digest


def test_unfinished_dataset_has_no_digest(tmp_path):
    store = generate_dataset(TRUTH, tmp_path)
    store.forget(plan_chunks(TRUTH)[0].name)
    with pytest.raises(StoreError, match="1 chunks are missing"):
        digest_of(tmp_path)


def test_every_system_is_in_one_chunk():
    generator = replace(EXPERT, graphs_per_size=21)
    chunks = plan_chunks(generator)
    numbers = [number for chunk in chunks for number in chunk.numbers]
    assert sorted(numbers) == list(range(42))
    assert len({chunk.name for chunk in chunks}) == len(chunks)
    for chunk in chunks:
        assert len({generator.size_of(number) for number in chunk.numbers}) == 1


def start(folder, *options):
    return subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, *COMMAND, *options, "--out", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )


# The command with small chunks, so that there are many moments to be killed at.
_SCRIPT = """
import sys
from causal_bayes_opt import cli
from causal_bayes_opt.training import generation
generation.SYSTEMS_PER_CHUNK["truth"] = 1
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A dataset that was made in one go, and the seconds that it took."""
    folder = tmp_path_factory.mktemp("whole") / "data"
    began = time.monotonic()
    assert start(folder).wait() == 0
    return folder, time.monotonic() - began


def test_killed_at_random_moments_it_ends_with_the_same_content(whole, tmp_path, monkeypatch):
    monkeypatch.setitem(generation.SYSTEMS_PER_CHUNK, "truth", 1)
    whole, seconds = whole
    digest = digest_of(whole)
    rng = random.Random(0)
    folder = tmp_path / "killed"
    kills = 0
    while kills < 3:
        process = start(folder)
        chunks = len(DatasetStore.open(folder).chunks) if (folder / "header.json").exists() else 0
        # Killed some time after it has written something more.
        limit = time.monotonic() + 10 * seconds + 60
        while process.poll() is None and time.monotonic() < limit:
            known = (folder / "header.json").exists()
            if known and len(DatasetStore.open(folder).chunks) > chunks:
                break
            time.sleep(0.002)
        time.sleep(rng.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert start(folder).wait() == 0
    assert digest_of(folder) == digest
    assert DatasetStore.open(folder).chunks == DatasetStore.open(whole).chunks


def test_ray_gives_the_same_content_and_loses_nothing_with_a_worker(whole, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setitem(generation.SYSTEMS_PER_CHUNK, "truth", 1)
    folder = tmp_path / "ray"
    process = start(folder, "--engine", "ray", "--workers", "2")
    killed = None
    while process.poll() is None and killed is None:
        time.sleep(0.02)
        if (folder / "header.json").exists() and DatasetStore.open(folder).chunks:
            killed = _kill_a_busy_worker()
    assert process.wait() == 0
    assert killed is not None
    assert digest_of(folder) == digest_of(whole[0])


def _kill_a_busy_worker():
    """SIGKILL a Ray worker that is at work; return its process number, None where none is."""
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True)
    busy = [int(line.split()[0]) for line in listed.stdout.splitlines() if "ray::_do" in line]
    for pid in busy[:1]:
        os.kill(pid, signal.SIGKILL)
        return pid
    return None


def test_engines_by_name():
    assert isinstance(engine_named("ray", "auto", 2), RayEngine)
    with pytest.raises(UnknownNameError, match="did you mean 'ray'"):
        engine_named("rays")
    with pytest.raises(ConfigError, match="belong to --engine ray"):
        engine_named("local", workers=2)
    with pytest.raises(ConfigError, match="workers is 0"):
        engine_named("ray", workers=0)


def test_large_datasets_and_stages_are_behind_the_gate(tmp_path):
    large = replace(TRUTH, n_systems=1001)
    with pytest.raises(GateError, match="needs a validation report"):
        generate_dataset(large, tmp_path / "data")
    assert not (tmp_path / "data").exists()
    with pytest.raises(GateError, match="needs a validation report"):
        generate_stage(AdvancedCurriculumConfig(), 0, tmp_path)


def test_stages_follow_the_plan():
    curriculum = AdvancedCurriculumConfig()
    stages = [curriculum.stage(number) for number in range(4)]
    assert [(s.graph_sizes[0], s.graph_sizes[-1]) for s in stages] == [
        (3, 8),
        (9, 15),
        (16, 25),
        (26, 50),
    ]
    assert stages[2].systems.mechanisms == ("linear", "polynomial", "sigmoid")
    assert sum(stage.demonstrations for stage in stages) == 50_000
    assert len({stage.seed for stage in stages}) == 4
    with pytest.raises(ConfigError, match="stage 4"):
        curriculum.stage(4)
    with pytest.raises(ConfigError, match="too few for 4 stages"):
        AdvancedCurriculumConfig(target_demonstrations=100)
    with pytest.raises(UnknownNameError, match="did you mean 'neural'"):
        AdvancedCurriculumConfig(((3, 5),), (("neurel",),), 10, 10)


def test_large_systems_can_be_drawn():
    generator = replace(TRUTH, graph_sizes=(50,), n_systems=2, mean_parents=1.5)
    records = generator.records(0, [0, 1])
    assert records.observed.shape[2] == 50
    assert np.isfinite(records.means).all()


def test_exact_teacher_gives_the_posterior_of_the_rows_as_they_are():
    generator = replace(
        TRUTH,
        teacher="exact",
        systems=SystemDistribution(parameters="bge"),
        graph_sizes=(4,),
        n_systems=300,
        mean_parents=0.9,
    )
    records = generator.records(0, range(300))
    marginals = records.marginals[:, 0]
    # A posterior under its own prior is calibrated: in sum it says how many parents there are.
    said, true = marginals.sum(axis=1), records.true_parents.sum(axis=1)
    error = (said - true).std() / np.sqrt(len(said))
    assert abs((said - true).mean()) < 3 * error
    np.testing.assert_allclose(records.set_probs.sum(axis=2), 1.0, atol=1e-9)
    assert np.corrcoef(marginals.ravel(), records.true_parents.ravel())[0, 1] > 0.5
    for bad in (
        {"systems": SystemDistribution()},
        {"graph_families": ("chain",)},
        {"graph_sizes": (13,)},
    ):
        with pytest.raises(ConfigError, match="the teacher 'exact'"):
            replace(generator, **bad)
