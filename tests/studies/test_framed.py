"""Training in the frame, and its limits."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
import pytest
import torch

from sbilib.errors import DataError, ParameterError
from sbilib.models import FlowConfig
from sbilib.models.framed import NormalDensity, Whitening
from sbilib.problems import GaussianToy, published_test_sets
from sbilib.studies import (
    FramedRecipe,
    SymmetryJob,
    coverage_in_toys,
    evaluate_pair,
    fit_framed_pair,
    fit_job,
    fit_normal_pair,
    fit_stopped_pair,
    frame_errors,
    frame_limit,
    simulate_normal_fits,
    stopped_recipe,
    summarize_symmetry,
    symmetry_table,
)
from sbilib.studies.members import PairData
from sbilib.training import TrainConfig
from tests.problems.scaled import ScaledProblem

SMALL, LARGE = GaussianToy.small_distance(), GaussianToy.large_distance()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SBILIB_CACHE", str(tmp_path))
    return tmp_path


def quick(method: str, n_steps: int = 150) -> FramedRecipe:
    recipe = FramedRecipe.of(method)
    training = replace(
        recipe.training, n_steps=n_steps, batch_size=512, validate_every=n_steps, validation_size=500
    )
    return replace(recipe, training=training)


@pytest.mark.parametrize("method", ["flow", "classifier"])
def test_a_pair_in_the_frame_knows_the_dependence_on_a_scale(method):
    # A generic pair of 4000 events misses the dependence on z by far more than the tolerance.
    problem = ScaledProblem()
    recipe = replace(quick(method, 400), widening=1.5)
    if method == "flow":  # the tails of the frame are far from normal
        recipe = replace(recipe, model=replace(recipe.model, n_bins=8))
    pair = fit_framed_pair(problem, recipe, n_events=4000, seed=1, device="cpu")
    events = problem.sample("signal", torch.full((500,), 1.1), torch.Generator().manual_seed(2))
    z = torch.tensor([0.9, 1.0, 1.1])
    learned, exact = (d.log_components(events, z).signal.mean(dim=0) for d in (pair.densities, problem))
    assert torch.allclose(learned, exact, atol=0.1)
    assert torch.allclose(learned.diff(), exact.diff(), atol=0.03)
    assert set(pair.training) == {"signal", "background"}


@pytest.mark.parametrize("method", ["flow", "classifier"])
def test_declared_symmetries_hold_exactly_and_one_network_learns_both(method):
    pair = fit_framed_pair(SMALL, quick(method), n_events=2000, seed=1, device="cpu")
    u = torch.randn(50, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    z = torch.tensor([0.0])
    tables, mirrored, exchanged = (
        pair.densities.log_components(events, z) for events in (u, SMALL.invariances[0](u), SMALL.exchange(u))
    )
    assert torch.allclose(mirrored.signal, tables.signal, atol=1e-5)
    assert torch.allclose(exchanged.signal, tables.background, atol=1e-5)
    assert set(pair.training) == {"signal"}
    log_ratio = tables.signal - tables.background
    exact = SMALL.log_components(u, z)
    assert torch.corrcoef(torch.cat((log_ratio, exact.signal - exact.background), dim=1).T)[0, 1] > 0.97
    plain = fit_framed_pair(SMALL, quick(method), n_events=2000, seed=1, symmetries=False, device="cpu")
    tables, mirrored = (plain.densities.log_components(events, z) for events in (u, SMALL.invariances[0](u)))
    assert not torch.allclose(mirrored.signal, tables.signal, atol=1e-3)
    assert set(plain.training) == {"signal", "background"}


def test_training_uses_the_events_of_the_training_set_and_no_others(monkeypatch):
    seen = []

    def spy(model, loss, batches, *args, **kwargs):
        seen.append(batches.batch(200, 0)[0])

    monkeypatch.setattr("sbilib.studies.framed.train", spy)
    recipe = quick("flow")
    fit_framed_pair(LARGE, recipe, n_events=400, seed=3, symmetries=False, device="cpu")
    generic = get_events(3, 400)
    for component, whitened in zip(("signal", "background"), seen, strict=True):
        x, z = generic.component(component)
        u = LARGE.nuisance_map.to_reference(x, z).events
        assert torch.allclose(Whitening.of_events(u)(u).sort(dim=0).values, whitened.sort(dim=0).values)


def get_events(seed: int, n_events: int):
    recipe = stopped_recipe("flow", n_events=n_events, n_steps=1)
    return PairData.draw(LARGE, recipe, seed=seed, device=torch.device("cpu")).labeled


def test_a_finished_framed_pair_is_taken_from_its_checkpoint(cache, monkeypatch):
    first = fit_framed_pair(SMALL, quick("classifier"), n_events=500, seed=1, device="cpu")
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(
        "sbilib.training.loop._Run.step", lambda *_: pytest.fail("a finished training must not make steps")
    )
    second = fit_framed_pair(SMALL, quick("classifier"), n_events=500, seed=1, device="cpu")
    x, z = torch.ones(3, 2), torch.tensor([0.3])
    assert torch.equal(
        first.densities.log_components(x, z).signal, second.densities.log_components(x, z).signal
    )


def test_recipes_and_numbers_that_cannot_be_are_refused():
    training = TrainConfig(n_steps=1, learning_rate=0.1)
    with pytest.raises(ParameterError, match='keep must be "last"'):
        FramedRecipe("flow", FlowConfig(), replace(training, keep="best"))
    with pytest.raises(ParameterError, match="a classifier recipe needs a ClassifierConfig, got FlowConfig"):
        FramedRecipe("classifier", FlowConfig(), training)
    with pytest.raises(ParameterError, match="events of 3 features, the problem has 2"):
        fit_framed_pair(SMALL, FramedRecipe("flow", FlowConfig(features=3), training), n_events=100, seed=1)
    with pytest.raises(ParameterError, match="n_events must be an integer of at least 10"):
        fit_framed_pair(SMALL, quick("flow"), n_events=5, seed=1)
    with pytest.raises(ParameterError, match="knowledge must be one of"):
        fit_job(SMALL, SymmetryJob("flow", "all", 100, 1))


def test_a_map_that_returns_nan_stops_the_training(monkeypatch):
    def broken(self, x, nuisance):
        return type(framed)(framed.events * torch.nan, framed.log_det)

    framed = LARGE.nuisance_map.to_reference(torch.ones(50, 2), torch.zeros(50))
    monkeypatch.setattr("sbilib.problems.maps.Rotation.to_reference", broken)
    with pytest.raises(DataError, match="50 of 50 events that are NaN"):
        fit_framed_pair(LARGE, quick("flow"), n_events=100, seed=1, device="cpu")


@pytest.mark.parametrize("method", ["flow", "classifier"])
def test_held_out_events_choose_the_weights_and_are_not_trained_on(method, monkeypatch):
    seen = {}

    def spy(model, loss, batches, validation, config, **kwargs):
        if "signal" in kwargs["label"]:
            n = 320 if method == "flow" else 640
            seen["kept"] = batches.batch(n, 0)[0][: n if method == "flow" else n // 2]
            seen["held"] = validation.batch(10_000, 5)[0]
            assert config.keep == "best"

    monkeypatch.setattr("sbilib.studies.stopped.train", spy)
    fit_stopped_pair(LARGE, stopped_recipe(method, n_events=800, n_steps=5), seed=3, device="cpu")
    x = {tuple(row) for row in get_events(3, 800).signal.tolist()}
    kept, held = ({tuple(row) for row in seen[name].tolist()} & x for name in ("kept", "held"))
    assert (len(kept), len(held)) == (320, 80)
    assert not kept & held


def test_an_early_stopped_pair_trains():
    pair = fit_stopped_pair(LARGE, stopped_recipe("flow", n_events=400, n_steps=45), seed=1, device="cpu")
    result = pair.training["signal"]
    assert result.validation_steps.tolist() == [20, 40, 45]
    assert result.validation_loss.min() == result.validation_loss[result.validation_steps == result.best_step]


def test_the_limit_is_that_of_simulated_fits():
    # Fits of means and covariances know more than the limit supposes, but for a small distance little more.
    table = simulate_normal_fits(SMALL, n_training=100_000, n_repeats=12, seed=4)
    both = table[table["mirror"] & table["exchange"]].set_index("fitted")
    limit = frame_limit(SMALL, n_training=100_000, symmetries=True)
    row = both.loc["means and covariance"]
    assert abs(row["total overlap"] - limit) < 3 * row["error"] + 1e-3
    neither = table[~table["mirror"] & ~table["exchange"]].set_index("fitted").loc["means and covariance"]
    limit = frame_limit(SMALL, n_training=100_000, symmetries=False)
    assert abs(neither["total overlap"] - limit) < 3 * neither["error"] + 1e-3


def test_the_limit_has_a_closed_form_where_every_event_is_identified():
    # Then the score in z is r u_2 of variance r^2 in either component, which is also the information.
    toy, n_training = GaussianToy(6.0), 10_000
    expected = []
    for ratio in toy.test_signal_ratios:
        f = ratio / (1 + ratio)
        sigma = math.sqrt(1000 * (f**2 + (1 - f) ** 2) / (n_training / 2))
        expected.append(1 - 2 / math.pi * math.atan(sigma / 2))
    limit = frame_limit(toy, n_training=n_training, symmetries=False)
    assert limit == pytest.approx(sum(expected) / 3, abs=2e-3)
    assert frame_limit(toy, n_training=n_training, symmetries=True) > 0.999


@pytest.mark.parametrize("toy", [SMALL, LARGE])
def test_limits_rise_with_events_and_with_knowledge(toy):
    for symmetries in (False, True):
        limits = [frame_limit(toy, n_training=n, symmetries=symmetries) for n in (1000, 10_000, 100_000)]
        assert limits == sorted(limits)
    known, unknown = (frame_limit(toy, n_training=10_000, symmetries=s) for s in (True, False))
    assert known > unknown + 0.05
    # The displacement falls with the root of the number of events, and the missing overlap with it.
    missing = [1 - frame_limit(toy, n_training=n, symmetries=True) for n in (10**6, 4 * 10**6)]
    assert missing[0] / missing[1] == pytest.approx(2.0, rel=0.02)


def test_first_order_errors_are_those_of_real_likelihoods():
    # Means that are wrong by a few percent: prediction against bootstrap sets.
    def normal(x: float, y: float) -> NormalDensity:
        return NormalDensity(Whitening(torch.tensor([x, y]).double(), torch.eye(2).double()))

    pair = fit_normal_pair(SMALL, n_events=10_000, seed=2, symmetries=False)
    for component, density in (("signal", normal(0.52, 0.03)), ("background", normal(-0.49, 0.0))):
        setattr(pair, component, density)
    predicted = frame_errors(SMALL, pair.signal, pair.background).overlap.mean().item()
    sets = published_test_sets(SMALL, torch.Generator().manual_seed(1), n_events=2000)
    measured = evaluate_pair(pair, sets, exact=SMALL, n_bootstrap=10, seed=1)["total overlap"].mean()
    assert 0.5 < predicted < 0.9
    assert measured == pytest.approx(predicted, abs=0.03)


def turned(angle: float) -> list[NormalDensity]:
    """The exact densities of the large-distance case, turned by an angle."""
    c, s = 2.0 * math.cos(angle), 2.0 * math.sin(angle)
    eye = torch.eye(2).double()
    return [NormalDensity(Whitening(torch.tensor(mean).double(), eye)) for mean in ([c, s], [-c, -s])]


def test_a_displaced_nuisance_value_shows_as_such():
    errors = frame_errors(LARGE, *turned(0.01), n_events=1000)
    # Nearly every event is identified: the information is close to r squared.
    assert errors.nuisance_shift.abs().tolist() == pytest.approx([0.01 * 2.0 * 1000**0.5] * 3, rel=0.05)
    assert errors.ratio_shift.abs().max() < 1e-3


def test_the_table_is_kept_row_by_row(cache, monkeypatch):
    sets = published_test_sets(LARGE, torch.Generator().manual_seed(1), n_events=300)[:2]
    jobs = [SymmetryJob("normal", knowledge, 2000, 1) for knowledge in ("frame", "symmetric")]
    options = {"n_bootstrap": 2, "set_size": 200, "seed": 1, "device": "cpu"}
    first = symmetry_table(LARGE, jobs[:1], sets, **options)
    both = symmetry_table(LARGE, jobs, sets, **options)
    assert len(list(cache.glob("symmetry-*.parquet"))) == 2
    pd.testing.assert_frame_equal(both[:1], first)
    assert both["total overlap"].between(0.5, 1.0).all()
    assert summarize_symmetry(both)["n_seeds"].tolist() == [1, 1]
    with pytest.raises(ParameterError, match="knowledge of a normal fit"):
        symmetry_table(LARGE, [SymmetryJob("normal", "generic", 2000, 1)], sets, **options)


def test_coverage_in_toys_sees_the_exact_likelihood_cover_and_a_wrong_one_miss():
    # 9 x 60 toys: the standard error is 2%, so that 4 of them make a false alarm in 16 000.
    exact = coverage_in_toys(LARGE, [LARGE], n_toys=60, seed=1)
    assert len(exact) == 18
    same = coverage_in_toys(LARGE, [LARGE], n_toys=60, seed=1, table_spacing=0.0)
    pd.testing.assert_frame_equal(exact, same, atol=1e-3)
    for _, rows in exact.groupby("parameter"):
        assert rows["coverage"].mean() == pytest.approx(0.683, abs=0.08)
    wrong = fit_normal_pair(LARGE, n_events=1000, seed=1, symmetries=True)
    wrong.signal, wrong.background = turned(0.05)
    table = coverage_in_toys(LARGE, [wrong], n_toys=20, seed=1).groupby("parameter")["coverage"].mean()
    assert table["z"] < 0.2
    assert table["mu"] > 0.5
