"""Training on a finite sample at fresh nuisance values, with exact densities as the oracle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sbilib.errors import ParameterError, TrainingError
from sbilib.models.classifier import ClassifierConfig
from sbilib.models.flow import FlowConfig
from sbilib.problems import GaussianToy, check_nuisance_map
from sbilib.problems.higgs import WeightedEvents
from sbilib.studies.higgs_models import HiggsModels, HiggsSplits, higgs_test_sets
from sbilib.studies.higgs_recipes import higgs_framed_recipe, higgs_recipe
from sbilib.studies.higgs_scaling import StandardizedProblem, fit_scaling
from sbilib.studies.higgs_training import (
    FrameCoordinates,
    ShiftedBatches,
    _some,
    fit_higgs_framed,
    fit_higgs_pairs,
)
from sbilib.studies.pairs import FittedPair
from sbilib.studies.unit_results import make_units
from tests.studies.higgs_examples import SampledProblem

CPU = torch.device("cpu")
PROBLEM = SampledProblem()


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBILIB_CACHE", str(tmp_path))


def _quick(method: str, n_steps: int = 300):
    recipe = higgs_recipe(method, "modern", n_steps=n_steps)
    if isinstance(recipe.model, FlowConfig):
        model: FlowConfig | ClassifierConfig = replace(recipe.model, n_transforms=1, hidden=16, n_bins=6)
    else:
        model = replace(recipe.model, hidden=(32, 32))
    training = replace(recipe.training, batch_size=512, validation_size=500, learning_rate=1e-2)
    return replace(recipe, model=model, training=training)


def test_published_recipes_are_those_of_the_source() -> None:
    flow, classifier = higgs_recipe("flow", "sluijter"), higgs_recipe("classifier", "sluijter")
    assert (flow.training.learning_rate, classifier.training.learning_rate) == (3e-6, 1e-4)
    assert flow.training.n_steps == classifier.training.n_steps == 100_000
    assert flow.model == FlowConfig.sluijter()
    assert classifier.model == ClassifierConfig.sluijter()
    assert fit_scaling(PROBLEM, scale_nuisance=False).config.nuisance_width == 1.0


def test_the_fine_classifier_is_for_two_coordinates_and_can_be_declined() -> None:
    fine, small = higgs_recipe("classifier", "modern"), higgs_recipe("classifier", "modern", fine=False)
    assert (fine.model.nuisance_degree, small.model.nuisance_degree) == (6, 4)
    assert fine.roughness < small.roughness
    assert fine.training.n_steps > small.training.n_steps
    assert higgs_recipe("classifier", "modern", n_coordinates=6).model == replace(small.model, n_features=6)
    wanted = higgs_recipe("classifier", "modern", n_coordinates=6, fine=True)
    assert wanted.model == replace(fine.model, n_features=6)
    assert higgs_recipe("flow", "modern", fine=True) == higgs_recipe("flow", "modern", fine=False)
    assert higgs_recipe("classifier", "sluijter", fine=True) == higgs_recipe("classifier", "sluijter")


def test_batches_follow_from_seed_and_step_and_draw_fresh_nuisance_values() -> None:
    inner = StandardizedProblem(PROBLEM, fit_scaling(PROBLEM, n_events=1000))

    def batches(seed: int) -> ShiftedBatches:
        return ShiftedBatches(inner, 3, "classifier", [seed], CPU)

    x, z, labels = batches(1).batch(100, 7)
    assert x.shape == (6, 100, 2)
    assert labels[:, :50].eq(1).all()
    assert labels[:, 50:].eq(0).all()
    # Negatives are given the nuisance values of the positives.
    assert torch.equal(z[:, :50], z[:, 50:])
    assert all(torch.equal(a, b) for a, b in zip((x, z, labels), batches(1).batch(100, 7), strict=True))
    assert not torch.equal(z, batches(1).batch(100, 8)[1])
    assert not torch.equal(z, batches(2).batch(100, 7)[1])
    assert z.abs().max() <= 1
    assert z.unique().numel() > 290


@pytest.mark.parametrize("method", ["flow", "classifier"])
def test_pairs_learn_the_exact_log_ratio(method: str) -> None:
    pair = fit_higgs_pairs(PROBLEM, _quick(method), seeds=[1])[0]
    x = torch.cat([PROBLEM.all_events(name, 1.04).events[:2000] for name in ("signal", "background")])
    z = torch.tensor([0.95, 1.0, 1.05], dtype=torch.float64)
    found, exact = pair.densities.log_components(x, z), PROBLEM.log_components(x, z)
    error = (found.signal - found.background) - (exact.signal - exact.background)
    assert float(error.square().mean().sqrt()) < 0.25
    # The change with z, which decides the interval of z; without any it would be off by about 0.14.
    moved = (found.signal[:, 2] - found.signal[:, 0]) - (exact.signal[:, 2] - exact.signal[:, 0])
    assert float(moved.square().mean().sqrt()) < 0.07


def _mean_scores(pair: FittedPair, problem: SampledProblem) -> tuple[float, float]:
    """Largest shift for 1000 events in standard deviations, and largest error of a normalization."""
    shifts, sums = [], []
    reference = torch.cat([problem.all_events(name, 1.0).events for name in ("signal", "background")])
    for z in (0.88, 1.0, 1.12):
        nodes = torch.tensor([z - 0.005, z, z + 0.005], dtype=torch.float64)
        for component in ("signal", "background"):
            events = problem.all_events(component, z).events
            found = getattr(pair.densities.log_components(events, nodes), component)
            score = (found[:, 2] - found[:, 0]) / 0.01
            shifts.append(abs(float(score.mean() / score.std())) * 1000**0.5)
            ratios = getattr(pair.densities.log_components(reference, nodes[1:2]), component).exp()
            sums.append(abs(float(ratios.mean()) - 1))
    return max(shifts), max(sums)


def test_matching_moments_takes_the_shift_out_of_classifiers() -> None:
    recipe = _quick("classifier", 150)
    [matched] = fit_higgs_pairs(PROBLEM, recipe, seeds=[1])
    [plain] = fit_higgs_pairs(PROBLEM, replace(recipe, normalize=False), seeds=[1])
    shift, error = _mean_scores(matched, PROBLEM)
    plain_shift, plain_error = _mean_scores(plain, PROBLEM)
    assert shift < min(0.5, 0.3 * plain_shift)
    assert error < min(1e-3, 0.3 * plain_error)
    # Two samples of 20 000 events differ by up to about 0.32 of these in a standard deviation.
    assert _mean_scores(matched, SampledProblem(seed=2))[0] < shift + 4 * 0.32


def test_a_failure_to_match_names_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise TrainingError("the moments could not be matched")

    monkeypatch.setattr("sbilib.studies.higgs_training.match_moments", fail)
    with pytest.raises(TrainingError, match="signal classifier of seed 3"):
        fit_higgs_pairs(PROBLEM, _quick("classifier", 2), seeds=[3])


def test_large_samples_are_thinned_and_weights_are_kept() -> None:
    events = torch.arange(450_000, dtype=torch.float64).unsqueeze(1)
    many = _some(WeightedEvents(events, events[:, 0]))
    assert many.events[:3, 0].tolist() == many.weights[:3].tolist() == [0, 3, 6]
    assert (many.step, len(many.events)) == (3, 150_000)
    few = WeightedEvents(events[:100], events[:100, 0])
    assert len(_some(few).events) == 100
    assert _some(few, many.step).events[:3, 0].tolist() == [0, 3, 6]


def test_all_events_of_a_standardized_problem_are_coordinates_at_the_scaled_value() -> None:
    scaling = fit_scaling(PROBLEM, n_events=1000)
    inner = StandardizedProblem(PROBLEM, scaling)
    found = inner.all_events("signal", 0.5)
    expected = PROBLEM.all_events("signal", 1.1)
    assert torch.allclose(found.events, scaling(expected.events))
    assert torch.equal(found.weights, expected.weights)
    assert torch.equal(inner.all_events("signal", 1 + 1e-9).events, inner.all_events("signal", 1.0).events)
    with pytest.raises(ParameterError, match="nuisance"):
        inner.all_events("signal", 1.2)
    toy = GaussianToy(2.0)
    with pytest.raises(ParameterError, match="no finite sample"):
        StandardizedProblem(toy, fit_scaling(toy, n_events=1000)).all_events("signal", 0.0)


def test_a_finished_training_is_not_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(_quick("classifier", 20), normalize=False)
    first = fit_higgs_pairs(PROBLEM, recipe, seeds=[1, 2])

    def forbidden(*_: object) -> None:
        raise AssertionError("a batch was asked for")

    monkeypatch.setattr("sbilib.training.stack._StackRun.advance", forbidden)
    again = fit_higgs_pairs(PROBLEM, recipe, seeds=[1, 2])
    x, z = PROBLEM.all_events("signal", 1.0).events[:10], torch.tensor([1.0])
    assert torch.equal(
        first[1].densities.log_components(x, z).signal, again[1].densities.log_components(x, z).signal
    )
    assert not torch.equal(
        first[0].densities.log_components(x, z).signal, first[1].densities.log_components(x, z).signal
    )


def test_a_small_training_set_can_be_asked_for() -> None:
    pair = fit_higgs_pairs(PROBLEM, _quick("flow", 10), seeds=[1], n_events=600)[0]
    assert pair.recipe.n_events == 600
    assert pair.densities.log_components(torch.ones(2, 2), torch.tensor([1.0])).signal.shape == (2, 1)


def test_coordinates_of_the_frame_are_an_exact_map() -> None:
    inner = StandardizedProblem(PROBLEM, fit_scaling(PROBLEM, n_events=1000))
    x = PROBLEM.all_events("signal", 1.1).events[:50]
    z = torch.linspace(0.8, 1.2, 50, dtype=torch.float64)
    check_nuisance_map(FrameCoordinates(PROBLEM.nuisance_map, inner.scaling), x, z, tolerance=1e-5)
    y, t = inner.scaling(x), inner.scaling.scaled_nuisance(z)
    check_nuisance_map(inner.nuisance_map, y, t, tolerance=1e-5)


def test_framed_flow_learns_the_density_and_knows_its_dependence() -> None:
    recipe = higgs_framed_recipe("flow", n_steps=200)
    recipe = replace(recipe, model=replace(recipe.model, n_transforms=1, hidden=16, n_bins=4))
    pair = fit_higgs_framed(PROBLEM, recipe, n_events=20_000, seed=1).densities
    x = PROBLEM.all_events("signal", 1.04).events[:2000]
    z = torch.tensor([0.95, 1.0, 1.05], dtype=torch.float64)
    found, exact = pair.log_components(x, z), PROBLEM.log_components(x, z)
    assert float((found.signal - exact.signal).square().mean().sqrt()) < 0.15
    # Moving an event along the map changes its density by the Jacobian alone, exactly.
    frame = PROBLEM.nuisance_map
    at_one = frame.to_reference(x, torch.full((len(x),), 1.05, dtype=torch.float64))
    base = pair.log_components(at_one.events, torch.ones(1, dtype=torch.float64)).signal[:, 0]
    assert torch.allclose(found.signal[:, 2], base + at_one.log_det, atol=2e-3)


def test_bad_input_is_named() -> None:
    with pytest.raises(ParameterError, match="seeds"):
        fit_higgs_pairs(PROBLEM, _quick("flow"), seeds=[])
    with pytest.raises(ParameterError, match="seeds"):
        fit_higgs_pairs(PROBLEM, _quick("flow"), seeds=[1, 1])
    with pytest.raises(ParameterError, match="coordinates"):
        fit_higgs_pairs(PROBLEM, higgs_recipe("flow", "modern", n_coordinates=3), seeds=[1])
    with pytest.raises(ParameterError, match="learning_rates"):
        HiggsModels(learning_rates=(1e-3,))


def test_many_models_are_made_unit_by_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "sbilib.studies.higgs_models.higgs_recipe",
        lambda method, name, **options: _quick(method, 5),
    )
    tests = tuple(SampledProblem(size=4000, seed=seed) for seed in (11, 12))
    splits = HiggsSplits(SampledProblem(size=4000), SampledProblem(size=4000, seed=2), tests)
    models = HiggsModels(
        n_pairs=3, pairs_per_unit=2, n_toys=2, n_events=200, n_bootstrap=3, n_test_events=900
    )
    said: list[str] = []
    table = make_units(models.study(splits), say=said.append)
    assert [line.split(":")[0] for line in said] == [
        "flow-1-2",
        "flow-3-3",
        "classifier-1-2",
        "classifier-3-3",
    ]
    kinds = table.groupby(["method", "kind"]).size()
    for method in ("flow", "classifier"):
        assert kinds[method].to_dict() == {"training": 3, "toy": 3 * 9 * 2, "bootstrap": 3 * 9 * 2}
    toys = table[table.kind == "toy"]
    assert toys.groupby(["mu", "z", "toy"]).k.nunique().eq(1).all()
    assert table[table.kind == "bootstrap"]["mu coverage"].between(0, 1).all()
    make_units(models.study(splits), say=said.append)
    assert len(said) == 4


def test_test_sets_come_from_each_split() -> None:
    tests = tuple(SampledProblem(size=4000, seed=seed) for seed in (11, 12))
    splits = HiggsSplits(SampledProblem(size=100), SampledProblem(size=100), tests)
    sets = higgs_test_sets(splits, seed=1, n_events=900)
    assert len(sets) == 18
    assert [s.n_signal for s in sets[:9:3]] == [82, 150, 208]
