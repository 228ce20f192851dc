"""Systems that were trained on are recognised, and the training is drawn again as it was."""

from dataclasses import asdict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_bayes_opt.core.random_systems import SystemDistribution, draw_systems, to_scm
from causal_bayes_opt.core.sample import SystemArrays
from causal_bayes_opt.core.scm import SCM
from causal_bayes_opt.surrogate.network import load_pretrained
from causal_bayes_opt.surrogate.training import DesignDistribution, TrainingDistribution, simulate
from causal_bayes_opt.training.overlap import (
    Phase,
    fingerprint,
    overlap_with_training,
    shared_keys,
    system_numbers,
    training_systems,
)

CONFIGS = Path(__file__).parents[2] / "configs"
PARTS = (
    SystemDistribution(n_vars=(3, 5)),
    SystemDistribution(n_vars=(3, 5), mechanisms=("neural",), scaling="iscm"),
)
CARD = {
    "systems": [asdict(part) for part in PARTS],
    "loop": {"steps": 6, "batch_size": 5, "seed": 3},
}


def drawn_in_training(step, part, place):
    """A system as the loop and `simulate` draw it."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(4), step), part)
    systems = draw_systems(jax.random.split(key)[0], 3 - part, PARTS[part])
    return to_scm(SystemArrays(*(np.asarray(leaf)[place] for leaf in systems)))


@pytest.mark.parametrize("part", [0, 1])
def test_a_system_of_the_training_is_recognised(part):
    scm = drawn_in_training(5, part, 1)
    found = overlap_with_training([scm, SCM.linear(["a", "b"], {("a", "b"): 2.0})], [1, 2], CARD, 9)
    assert found == {
        "held_out": 2,
        "keys": 6,
        "shared_keys": 0,
        "systems": 30,
        "shared_systems": 1,
    }


def test_a_system_of_an_earlier_stage_is_recognised():
    distribution = asdict(TrainingDistribution((PARTS[0],), DesignDistribution()))
    staged = {**CARD, "systems": [], "stages": [{"distribution": distribution, "steps": 6}]}
    staged["systems"] = [asdict(SystemDistribution(n_vars=(9, 9)))]
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(4), 5), 0)
    systems = draw_systems(jax.random.split(key)[0], 5, PARTS[0])
    scm = to_scm(SystemArrays(*(np.asarray(leaf)[4] for leaf in systems)))
    assert overlap_with_training([scm], [1], staged, 9)["shared_systems"] == 1


def test_a_system_of_the_model_it_began_with_is_recognised():
    other = {"systems": [asdict(SystemDistribution(n_vars=(9, 9)))], "shares": [1.0]}
    card = {**other, "loop": {"steps": 2, "batch_size": 3, "seed": 5}, "start": CARD}
    found = overlap_with_training([drawn_in_training(5, 0, 1)], [1], card, 9)
    assert (found["shared_systems"], found["keys"], found["systems"]) == (1, 8, 36)


def test_what_is_drawn_again_is_what_the_training_simulates():
    # Adjacencies, since those are what a simulated batch shows of its systems.
    distribution = (SystemDistribution(n_vars=(3, 5), weights=(1.0, 1.0)),)
    mixture = TrainingDistribution(distribution, DesignDistribution(n_obs=(20, 20)))
    again = np.stack(list(training_systems(Phase(mixture, 2, 4, 3), [1])))
    key = jax.random.fold_in(jax.random.key(4), 1)
    batch = simulate(key, 4, mixture)
    weights = again[:, :25].reshape(4, 5, 5)
    assert ((weights != 0) == np.swapaxes(np.asarray(batch.parents), 1, 2)).all()


def test_order_and_sign_of_variables_make_no_other_system():
    scm = SCM.linear(["a", "b", "c"], {("a", "b"): 2.0, ("b", "c"): -0.3})
    turned = SCM.linear(["c", "a", "b"], {("a", "b"): -2.0, ("b", "c"): 0.3})
    other = SCM.linear(["a", "b", "c"], {("a", "b"): 2.0, ("b", "c"): -0.301})
    assert fingerprint(system_numbers(scm)) == fingerprint(system_numbers(turned))
    assert fingerprint(system_numbers(scm)) != fingerprint(system_numbers(other))


def test_keys_that_both_have_are_counted():
    keys = jax.vmap(jax.random.key)(jnp.arange(5))
    assert shared_keys(keys, keys[3:]) == 2


def test_the_shipped_model_says_what_can_be_compared():
    scm = SCM.linear(["a", "b"], {("a", "b"): 2.0})
    card = load_pretrained().card
    found = overlap_with_training([scm], [1], card, 0)
    # Its own run, and those that it went on from.
    loops = [card["loop"]]
    while card := card.get("start"):
        loops.append(card["loop"])
    assert len(loops) == len(list(CONFIGS.glob("linear-*.json")))
    assert found["keys"] == sum(loop["steps"] for loop in loops)
    assert overlap_with_training([scm], [1], {}, 0)["keys"] == 0
