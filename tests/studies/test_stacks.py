"""Pairs trained together are the pairs trained alone."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import sbilib.studies.stacks as stacks
from sbilib.errors import ParameterError
from sbilib.problems import GaussianToy
from sbilib.studies import fit_pair, fit_pairs, get_recipe

TOY = GaussianToy.large_distance()


def tiny(method: str, name: str, n_steps: int = 12):
    recipe = get_recipe(method, name, case="large").adapted(n_steps=n_steps, n_events=600)
    training = replace(recipe.training, batch_size=64, validation_size=100, validate_every=5)
    return replace(recipe, training=training)


def weights(pair) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in pair.densities.parameters()])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SBILIB_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("method", ["flow", "classifier"])
@pytest.mark.parametrize("name", ["sluijter", "modern"])
def test_pairs_trained_together_equal_pairs_trained_alone(method: str, name: str) -> None:
    recipe = tiny(method, name)
    seeds, rates = [3, 4, 4], [1e-4, 1e-4, 3e-4]
    together = fit_pairs(TOY, recipe, seeds=seeds, learning_rates=rates, device="cpu")
    for pair, seed, rate in zip(together, seeds, rates, strict=True):
        own = replace(recipe, training=replace(recipe.training, learning_rate=rate))
        alone = fit_pair(TOY, own, seed=seed, device="cpu")
        # In float32 a product and a batch of them round differently, and Adam turns a tiny gradient of either
        # sign into a full step; tests/training/test_stack.py shows equality to 1e-9 in float64.
        assert (weights(pair) - weights(alone)).abs().median() < 1e-5
        assert pair.seed == seed
        assert pair.learning_rate == rate
        assert not pair.diverged
        for component in ("signal", "background"):
            difference = pair.training[component].training_loss - alone.training[component].training_loss
            assert difference.abs().max() < 2e-3
    assert (weights(together[1]) - weights(together[2])).abs().max() > 1e-4


def test_cutting_the_stack_changes_nothing_but_rounding() -> None:
    recipe = tiny("classifier", "modern")
    at_once = fit_pairs(TOY, recipe, seeds=[1, 2, 3], device="cpu", members_at_once=6)
    in_turn = fit_pairs(TOY, recipe, seeds=[1, 2, 3], device="cpu", members_at_once=2)
    for a, b in zip(at_once, in_turn, strict=True):
        assert (weights(a) - weights(b)).abs().median() < 1e-5


def test_out_of_memory_halves_the_stack_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    real = stacks.train_stack

    def hungry(stack, *rest, **options):
        sizes.append(stack.n_members)
        if stack.n_members > 2:
            raise torch.OutOfMemoryError
        return real(stack, *rest, **options)

    monkeypatch.setattr(stacks, "train_stack", hungry)
    recipe = tiny("classifier", "sluijter", n_steps=2)
    with pytest.warns(UserWarning, match="ran out of memory with 8 models at once; trying 4"):
        pairs = fit_pairs(TOY, recipe, seeds=[1, 2, 3, 4], device="cpu", members_at_once=8)
    assert [pair.seed for pair in pairs] == [1, 2, 3, 4]
    assert sizes == [8, 4, 2, 2, 2, 2]


def test_a_pair_that_diverges_is_flagged_and_the_others_are_sound() -> None:
    recipe = tiny("classifier", "sluijter")
    pairs = fit_pairs(TOY, recipe, seeds=[1, 2], learning_rates=[1e-4, 1e30], device="cpu")
    assert [pair.diverged for pair in pairs] == [False, True]


def test_shared_and_resampled_training_sets() -> None:
    recipe = tiny("flow", "modern")
    own, shared, bootstrap = (
        fit_pairs(TOY, recipe, seeds=[5, 6], data=data, data_seed=5, device="cpu")
        for data in ("own", "shared", "bootstrap")
    )
    assert torch.equal(weights(own[0]), weights(shared[0])), "the set of seed 5 is that of the pair of seed 5"
    assert not torch.equal(weights(own[1]), weights(shared[1]))
    assert not torch.equal(weights(shared[0]), weights(bootstrap[0]))


def test_a_bootstrap_resample_holds_events_of_the_set_about_63_percent_of_them() -> None:
    recipe = replace(tiny("classifier", "modern"), n_events=20_000)
    data = stacks.PairData.draw(TOY, recipe, seed=1, device=torch.device("cpu"))
    again = data.resampled(seed=2)
    for kind in ("signal", "background"):
        x, z = data.labeled.component(kind)
        rows = {tuple(row) for row in torch.cat((x, z[:, None]), dim=1).tolist()}
        x, z = again.labeled.component(kind)
        drawn = {tuple(row) for row in torch.cat((x, z[:, None]), dim=1).tolist()}
        assert len(x) == 10_000
        assert drawn <= rows
        # mean 1 - 1/e, standard deviation below 0.0032: five of them are a false alarm in two million
        assert abs(len(drawn) / len(rows) - (1 - math.exp(-1))) < 0.016


def test_bad_requests_are_refused() -> None:
    recipe = tiny("flow", "modern")
    with pytest.raises(ParameterError, match="at least one pair"):
        fit_pairs(TOY, recipe, seeds=[])
    with pytest.raises(ParameterError, match="occur twice"):
        fit_pairs(TOY, recipe, seeds=[1, 2, 1])
    with pytest.raises(ParameterError, match=r"as many as seeds \(2\), got 1"):
        fit_pairs(TOY, recipe, seeds=[1, 2], learning_rates=[1e-3])
    with pytest.raises(ParameterError, match="members_at_once"):
        fit_pairs(TOY, recipe, seeds=[1], members_at_once=1)
