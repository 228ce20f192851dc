"""Loaders: everything once, by the key, with little padding, and exactly resumable."""

import jax
import numpy as np
import pytest

from causal_bayes_opt.errors import ConfigError, StoreError
from causal_bayes_opt.surrogate.training import DesignDistribution
from causal_bayes_opt.training.data_generation import MinimalDatasetGenerator
from causal_bayes_opt.training.generation import generate_dataset, read_examples
from causal_bayes_opt.training.loaders import (
    AdvancedDataLoader,
    Position,
    SimpleDataLoader,
    padding_of,
    stack_examples,
)

TRUTH = MinimalDatasetGenerator(
    graph_sizes=(3, 5),
    n_systems=600,
    teacher="truth",
    design=DesignDistribution(n_obs=(20, 60), max_experiments=16),
)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("dataset")
    generate_dataset(TRUTH, place)
    return place


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    generate_dataset(MinimalDatasetGenerator((3, 4), 2, 2, seed=3), place)
    return place


def content(batches):
    """One line of numbers an example, in a fixed order."""
    lines = [
        (
            batch.present[i].sum(),
            batch.target_index[i],
            batch.obs_rows[i].sum(),
            batch.int_rows[i].sum(),
            np.float32(batch.observational_data[i].astype(np.float64).sum()),
            np.float32(batch.interventional_data[i].astype(np.float64).sum()),
            batch.parent_posterior[i].sum(),
        )
        for batch in batches
        for i in range(len(batch.target_index))
    ]
    return np.array(sorted(lines))


def test_both_loaders_give_every_example_once(small):
    examples = read_examples(small)
    streamed = [batch for _, batch in AdvancedDataLoader(small, 5).stream(KEY)]
    held = list(SimpleDataLoader(examples, 5).get_batches(KEY))
    whole = [stack_examples([example]) for example in examples]
    for found in (streamed, held):
        np.testing.assert_allclose(content(found), content(whole), rtol=1e-4, atol=1e-4)


def test_order_follows_the_key(folder):
    loader = AdvancedDataLoader(folder, 32, window_size=100)
    first, again, other = (
        [batch for _, batch in loader.stream(jax.random.key(seed))] for seed in (0, 0, 1)
    )
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.observational_data, b.observational_data)
    assert any(
        not np.array_equal(a.target_index, b.target_index)
        for a, b in zip(first, other, strict=False)
    )
    np.testing.assert_array_equal(content(first), content(other))


def test_stream_goes_on_exactly_from_any_position(folder):
    loader = AdvancedDataLoader(folder, 32, window_size=100)
    whole = list(loader.stream(KEY))
    assert whole[-1][0].batch == 0
    for stop in (0, 3, len(whole) - 2, len(whole) - 1):
        position = Position(*map(int, whole[stop][0]))
        rest = list(loader.stream(KEY, position))
        assert len(rest) == len(whole) - stop - 1
        for (_, a), (_, b) in zip(rest, whole[stop + 1 :], strict=True):
            for x, y in zip(a, b, strict=True):
                np.testing.assert_array_equal(x, y)


def test_batches_are_dictionaries_by_the_plans_name(folder):
    batch = next(AdvancedDataLoader(str(folder)).get_batches_efficient(KEY))
    assert batch["observational_data"].dtype == np.float32
    assert batch["interventional_data"].shape[-1] == 2
    assert len(batch["target_index"]) == 64


def test_padding_is_marked_empty_and_small(folder):
    batches = [batch for _, batch in AdvancedDataLoader(folder, 16).stream(KEY)]
    for batch in batches:
        assert not batch.observational_data[~batch.obs_rows].any()
        assert not batch.interventional_data[~batch.int_rows].any()
        means = batch.observational_data.sum(axis=1) / batch.obs_rows.sum(axis=1)[:, None]
        np.testing.assert_allclose(means, 0, atol=1e-5)
    assert padding_of(iter(batches)) < 0.15


def test_last_batches_can_be_left_out(folder):
    sizes = [
        len(batch.target_index)
        for _, batch in AdvancedDataLoader(folder, 64, drop_last=True).stream(KEY)
    ]
    assert sizes
    assert set(sizes) == {64}


def test_misuse_is_told(folder, tmp_path):
    with pytest.raises(ConfigError, match="batch_size is 0"):
        AdvancedDataLoader(folder, 0)
    with pytest.raises(ConfigError, match="window_size is 0"):
        AdvancedDataLoader(folder, window_size=0)
    with pytest.raises(StoreError, match="is no dataset"):
        next(AdvancedDataLoader(tmp_path).get_batches_efficient(KEY))
