"""Demonstrations: nothing is lost between the expert's run and an example."""

import jax
import numpy as np
import pytest

from causal_bayes_opt.core.graphs import topological_order
from causal_bayes_opt.errors import ConfigError, DataError, UnknownNameError
from causal_bayes_opt.training.data_generation import (
    MinimalDatasetGenerator,
    create_random_linear_scm,
    extract_expert_demonstrations,
    format_interventional_data,
    run_parent_scale_example,
    validate_data_pipeline,
    validate_trajectory_consistency,
)
from causal_bayes_opt.training.loaders import SimpleDataLoader

SMALL = MinimalDatasetGenerator(
    graph_sizes=(3, 4), graphs_per_size=2, demonstrations_per_graph=2, seed=3
)


@pytest.fixture(scope="module")
def run():
    return run_parent_scale_example(seed=1, T=3)


@pytest.fixture(scope="module")
def examples():
    return SMALL.generate_training_dataset()


def test_defaults_are_the_plans_arithmetic():
    generator = MinimalDatasetGenerator()
    systems = len(generator.graph_sizes) * generator.graphs_per_size
    assert systems == 96
    assert systems * generator.demonstrations_per_graph == 960


def test_examples_give_back_the_run_bit_by_bit(run):
    found = extract_expert_demonstrations([run])
    assert len(found) == 4
    assert validate_trajectory_consistency(run, found)
    values, trials = run["row_values"], run["row_trial"]
    last = found[-1]
    np.testing.assert_array_equal(
        last.interventional_data[..., 0] * run["stds"] + run["means"],
        (values[trials >= 0] - run["means"]) / run["stds"] * run["stds"] + run["means"],
    )
    assert len(last.interventional_data) == (trials >= 0).sum()
    assert len(found[0].interventional_data) == (trials == 0).sum()


@pytest.mark.parametrize("field", ["parent_posterior", "observational_data", "interventional_data"])
def test_a_lost_digit_is_seen(run, field):
    found = extract_expert_demonstrations([run])
    changed = getattr(found[2], field).copy()
    changed.flat[0] = np.nextafter(changed.flat[0], 2.0)
    object.__setattr__(found[2], field, changed)
    assert not validate_trajectory_consistency(run, found)
    assert not validate_trajectory_consistency(run, found[:-1])


def test_target_count_cuts_off(run):
    assert len(extract_expert_demonstrations([run, run], target_count=5)) == 5
    assert extract_expert_demonstrations([], target_count=5) == []


def test_pipeline_validates_itself():
    assert validate_data_pipeline()["examples"] == 11


def test_shapes_do_not_fit():
    with pytest.raises(DataError, match=r"values have shape \(2, 3\), the mask \(3, 3\)"):
        format_interventional_data(np.zeros((2, 3)), np.zeros((3, 3)))


def test_same_seed_gives_the_same_dataset(examples):
    again = SMALL.generate_training_dataset()
    assert len(again) == len(examples) == 4 * 3
    for first, second in zip(examples, again, strict=True):
        np.testing.assert_array_equal(first.interventional_data, second.interventional_data)
        np.testing.assert_array_equal(first.parent_posterior, second.parent_posterior)


def test_held_out_systems_share_nothing_with_the_training_ones(examples):
    held_out = SMALL.generate_held_out_dataset(3)
    seeds = {example.graph_metadata["seed"] for example in examples}
    assert seeds.isdisjoint(example.graph_metadata["seed"] for example in held_out)
    for number in range(4):
        ours, theirs = SMALL.system(0, number), SMALL.system(1, number)
        assert not np.array_equal(
            ours.mechanism("X1").noise.scale, theirs.mechanism("X1").noise.scale
        )


@pytest.mark.parametrize("family", ["chain", "scale_free", "star", "collider"])
def test_systems_of_a_family_are_acyclic_and_have_a_caused_target(family):
    scm = create_random_linear_scm(6, seed=2, family=family)
    topological_order(scm.adjacency())
    assert scm.target is not None
    assert scm.parents(scm.target)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"graphs_per_size": -1}, ConfigError),
        ({"demonstrations_per_graph": 0}, ConfigError),
        ({"graph_sizes": ()}, ConfigError),
        ({"graph_sizes": (1,)}, ConfigError),
        ({"mean_parents": 0.0}, ConfigError),
        ({"mean_parents": 1.5}, ConfigError),
        ({"graph_sizes": (3, 101)}, ConfigError),
        ({"n_systems": 0}, ConfigError),
        ({"teacher": "trueth"}, UnknownNameError),
        ({"expert": {"n_obss": 100}}, ConfigError),
        ({"seed": -1}, ConfigError),
        ({"graph_families": ("scale-free",)}, UnknownNameError),
    ],
)
def test_impossible_generators_are_refused_before_any_work(options, error):
    with pytest.raises(error):
        MinimalDatasetGenerator(**options)


def test_loader_gives_every_example_once_and_by_its_key(examples):
    loader = SimpleDataLoader(examples, batch_size=5)
    batches = list(loader.get_batches(jax.random.key(0)))
    assert sum(len(batch.target_index) for batch in batches) == len(examples)
    seen = np.concatenate([batch.parent_posterior.sum(axis=1) for batch in batches])
    expected = [example.parent_posterior.sum() for example in examples]
    np.testing.assert_allclose(np.sort(seen), np.sort(expected), rtol=1e-6)
    again = list(loader.get_batches(jax.random.key(0)))
    other = list(loader.get_batches(jax.random.key(1)))
    assert all(
        np.array_equal(a.target_index, b.target_index) for a, b in zip(batches, again, strict=True)
    )
    assert any(
        not np.array_equal(a.parent_posterior, b.parent_posterior)
        for a, b in zip(batches, other, strict=True)
    )


def test_last_batch_can_be_dropped(examples):
    loader = SimpleDataLoader(examples, batch_size=5, drop_last=True)
    assert [len(b.target_index) for b in loader.get_batches(jax.random.key(0))] == [5, 5]
    with pytest.raises(ConfigError, match="batch_size is 0"):
        SimpleDataLoader(examples, batch_size=0)
