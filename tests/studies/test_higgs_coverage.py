"""The units of the many models: which there are, and what is kept of each kind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sbilib.components import LogComponents
from sbilib.errors import ParameterError
from sbilib.models.flow import FlowConfig
from sbilib.studies.higgs_coverage import CURES, CoveragePlan, FlowVariant, held_out_losses
from sbilib.studies.higgs_models import HiggsSplits
from sbilib.studies.higgs_pairs import AS_TRAINED, pair_means
from sbilib.studies.higgs_recipes import higgs_recipe
from tests.studies.higgs_examples import SampledProblem

PLAN = CoveragePlan(
    modern_pairs=2,
    published_flows=1,
    published_classifiers=0,
    cured_flows=1,
    pairs_per_unit=2,
    published_flow_rate=7e-4,
    n_toys=2,
    n_ensemble_toys=5,
    n_events=60,
    n_bootstrap=2,
    n_test_events=540,
    n_test_splits=1,
    table_spacing=0.5,
)


def _splits() -> HiggsSplits:
    tests = tuple(SampledProblem(size=4000, seed=seed) for seed in (11, 12))
    return HiggsSplits(SampledProblem(size=4000), SampledProblem(size=4000, seed=2), tests)


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The recipes with small networks and a few steps."""

    def quick(method: str, name: str, *, learning_rate: float | None = None, **_: object):
        recipe = higgs_recipe(method, name, learning_rate=learning_rate, n_steps=5)
        if isinstance(recipe.model, FlowConfig):
            model = replace(recipe.model, n_transforms=1, hidden=8, n_bins=4)
        else:
            model = replace(recipe.model, hidden=(8, 8))  # type: ignore[assignment]
        training = replace(recipe.training, batch_size=64, validation_size=100)
        return replace(recipe, model=model, training=training)

    monkeypatch.setenv("SBILIB_CACHE", str(tmp_path))
    for module in ("higgs_models", "higgs_coverage"):
        monkeypatch.setattr(f"sbilib.studies.{module}.higgs_recipe", quick)


def test_units_follow_the_numbers_of_pairs_and_more_pairs_change_no_fact() -> None:
    assert PLAN.units == [
        "modern-flow-1-2",
        "modern-classifier-1-2",
        "sluijter-flow-1-1",
        "alternating-flow-1-1",
        "context-flow-1-1",
        "ensemble-flow",
        "ensemble-classifier",
        "as-trained",
        "template-fit",
    ]
    more = replace(PLAN, published_flows=7, cured_flows=4, compile_models=False)
    assert more.facts == PLAN.facts
    # More modern pairs change the ensembles.
    assert replace(PLAN, modern_pairs=3).facts != PLAN.facts
    assert PLAN.models["sluijter-flow"].learning_rates == (7e-4,)
    assert PLAN.models["modern-flow"].learning_rates is None


def test_rates_of_the_default_plan_keep_the_published_product() -> None:
    plan = CoveragePlan()
    for method in ("flow", "classifier"):
        published = higgs_recipe(method, "sluijter").training
        rate, steps = getattr(plan, f"published_{method}_rate"), getattr(plan, f"published_{method}_steps")
        assert rate * steps == pytest.approx(published.learning_rate * published.n_steps)


@pytest.mark.usefixtures("_quick")
def test_units_leave_the_promised_rows() -> None:
    splits = _splits()
    tables = {
        unit: PLAN.make(unit, splits) for unit in ("sluijter-flow-1-1", "ensemble-flow", "template-fit")
    }
    pair = tables["sluijter-flow-1-1"]
    assert pair.groupby("kind").size().to_dict() == {"training": 1, "toy": 18, "bootstrap": 18}
    assert pair["recipe"].eq("sluijter").all()
    assert pair["signal held-out loss"].notna().sum() == 1
    assert pair["mu_hat"].dtype == "float32"
    ensemble = tables["ensemble-flow"]
    assert set(ensemble["recipe"]) == {"mean_density", "mean_log_ratio"}
    counts = ensemble.groupby(["recipe", "kind"]).size()
    assert counts["mean_density"].to_dict() == {"bootstrap": 18, "summary": 18, "toy": 18}
    summary = ensemble[ensemble.kind == "summary"].set_index("recipe").n_toys
    assert (set(summary["mean_density"]), set(summary["mean_log_ratio"])) == ({5}, {1})
    assert set(tables["template-fit"]["method"]) == {"template fit"}


@pytest.mark.usefixtures("_quick")
def test_classifiers_as_trained_are_those_of_the_ensemble_before_their_moments_are_matched() -> None:
    splits = _splits()
    plan = replace(PLAN, n_ensemble_toys=50)
    before, after = (plan.make(unit, splits) for unit in ("as-trained", "ensemble-classifier"))
    assert before["kind"].eq("summary").all()
    assert set(zip(before["method"], before["recipe"], strict=True)) == {("classifier", AS_TRAINED)}
    after = after[(after["kind"] == "summary") & (after["recipe"] == "mean_density")]
    keys = ["parameter", "mu", "z", "n_toys"]
    assert before[keys].to_numpy().tolist() == after[keys].to_numpy().tolist()
    # The same toys: with the same densities the widths would be equal.
    assert before["width"].notna().sum() >= 9
    assert (before["width"].to_numpy() != after["width"].to_numpy()).all()
    models = plan.models["modern-classifier"]
    one, other = (replace(models, matched=on).fit("classifier", [1, 2], splits) for on in (True, False))
    for component in ("signal", "background"):
        layers = [getattr(pairs[0].densities, component).layers for pairs in (one, other)]
        assert all(
            torch.equal(a.weight, b.weight) for a, b in zip(layers[0][:-1:2], layers[1][:-1:2], strict=True)
        )
        assert not torch.equal(layers[0][-1].weight, layers[1][-1].weight)
    # The page that reads the table takes them for no pair.
    assert AS_TRAINED not in set(pair_means(plan.make("modern-classifier-1-2", splits))["recipe"])


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("name", list(CURES))
def test_variants_change_the_flow_and_nothing_else(name: str) -> None:
    models = PLAN.models[f"{name}-flow"]
    assert isinstance(models, FlowVariant)
    splits = _splits()
    pair = models.fit("flow", [1], splits)[0]
    published = PLAN.models["sluijter-flow"].fit("flow", [1], splits)[0]
    assert pair.recipe.model == replace(published.recipe.model, **CURES[name])  # type: ignore[arg-type]
    assert pair.recipe.training == published.recipe.training
    with pytest.raises(ParameterError, match="classifier"):
        models.fit("classifier", [1], splits)


def test_held_out_loss_is_least_for_the_exact_density() -> None:
    problem = SampledProblem(size=40_000)

    class Wrong:
        def log_components(self, x: torch.Tensor, nuisance: torch.Tensor) -> LogComponents:
            return problem.log_components(x, torch.ones_like(nuisance))

    exact, wrong = held_out_losses(problem, [problem]), held_out_losses(Wrong(), [problem])
    assert all(exact[name] < wrong[name] - 0.02 for name in ("signal", "background"))


def test_bad_numbers_are_named() -> None:
    with pytest.raises(ParameterError, match="modern_pairs"):
        CoveragePlan(modern_pairs=0)
    with pytest.raises(ParameterError, match="n_test_splits"):
        CoveragePlan(n_test_splits=6)
