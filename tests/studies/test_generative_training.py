"""The plan of the pages on generative models: units, rows, and that both pages ask for the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from sbilib.errors import DataError, ParameterError
from sbilib.models import QuantileToNormal
from sbilib.runs import find_root, load_study
from sbilib.simulation import BSM_CONTINUOUS
from sbilib.simulation.bsm_response import BsmResponse
from sbilib.studies.bsm_bounds import event_bounds
from sbilib.studies.generative_fits import GENERATORS, network_work
from sbilib.studies.generative_training import (
    MODEL_LABELS,
    GenerativePlan,
    likelihood_table,
    unit_label,
)
from sbilib.studies.unit_results import make_units
from tests.studies.generative_events import made_up_data

ENSEMBLE = "mixture+nsf-ar-ordered"
TINY = GenerativePlan(
    models=("mixture",), other_maps=(), ensemble=(), distortions=("cut",), n_train=500, n_steps=10,
    batch_size=64, n_compared=300, n_bins=5, n_splits=3, n_bootstrap=2, n_directions=2, n_permutations=19,
)  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SBILIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def table(cache: None) -> pd.DataFrame:
    return make_units(TINY.study(made_up_data()))


def test_units_are_models_simulation_and_faults():
    plan = GenerativePlan()
    assert len(plan.units) == 13
    assert plan.units[5:10] == [
        "mixture-quantile",
        "mixture-logit",
        ENSEMBLE,
        "simulation",
        "distorted-scaled",
    ]
    assert set(MODEL_LABELS) == set(GENERATORS)
    assert len({unit_label(unit) for unit in plan.units}) == 13


def test_units_decide_no_results_of_others():
    # More models may be asked for later without making those that are there anew.
    data = made_up_data(120)
    alone = GenerativePlan(models=("maf",), ensemble=())
    assert alone.study(data).facts == GenerativePlan().study(data).facts
    assert GenerativePlan(n_steps=7).study(data).facts != GenerativePlan().study(data).facts
    assert GenerativePlan().study(made_up_data(130)).facts != GenerativePlan().study(data).facts


def test_both_pages_ask_for_the_same_results():
    root = find_root(Path(__file__).parent)
    for name in ("smoke", "standard", "full"):
        first, second = (
            GenerativePlan.from_parameters(load_study(page, root).values(name))
            for page in ("generative-models", "is-it-the-same")
        )
        assert first == second


def test_a_unit_leaves_every_kind_of_row(table: pd.DataFrame):
    kinds = {unit: set(part["kind"]) for unit, part in table.groupby("unit")}
    measured = {
        "divergence",
        "correlation",
        "correlations",
        "classifier",
        "sliced",
        "impossible",
        "histogram",
    }
    assert kinds["simulation"] == kinds["distorted-cut"] == measured
    assert kinds["mixture-ordered"] == measured | {"model", "training", "gain"}
    divergences = table[(table["unit"] == "simulation") & (table["kind"] == "divergence")]
    assert tuple(divergences["feature"].unique()) == BSM_CONTINUOUS


def test_gain_is_that_of_the_model_over_independent_features(table: pd.DataFrame):
    data, unit = made_up_data(), "mixture-ordered"
    model = TINY.fit(unit, data).model  # from its checkpoint
    train = data.events("background", "train")[:500]
    alone = QuantileToNormal.fit(train, names=BSM_CONTINUOUS, bounds=event_bounds())

    def gain(events: torch.Tensor) -> float:
        u, log_det = alone(events)
        independent = log_det + torch.distributions.Normal(0.0, 1.0).log_prob(u).sum(dim=1)
        return float((model.log_prob(events) - independent).double().mean())

    found = likelihood_table(table).loc[unit]
    assert found["gain"] == pytest.approx(gain(data.events("background", "reference")[:300]), rel=1e-3)
    assert found["training_gain"] == pytest.approx(gain(train), rel=1e-3, abs=1e-3)
    curve = table[(table["unit"] == unit) & (table["kind"] == "training")]
    # The weights of the best validation loss are kept.
    assert curve["validation_gain"].max() == pytest.approx(
        gain(data.events("background", "validation")[:100]), rel=1e-3
    )
    assert list(curve["step"]) == list(range(1, 11))
    assert (found["behind"], found["passes"]) == (0, 18 * found["sampling"])


def test_an_ensemble_is_the_mean_density_of_its_members(cache: None):
    data, both = made_up_data(), ("mixture", "real-nvp")
    plan = replace(TINY, models=both, ensemble=both)
    unit = "mixture+real-nvp-ordered"
    assert plan.model_units == ["mixture-ordered", "real-nvp-ordered", unit]
    assert replace(plan, ensemble=()).model_units == plan.model_units[:2]
    rows = plan.make(unit, data)
    assert "training" not in set(rows["kind"])
    members = [plan.fit(name, data) for name in plan.model_units[:2]]
    train = data.events("background", "train")[:500]
    alone = QuantileToNormal.fit(train, names=BSM_CONTINUOUS, bounds=event_bounds())
    u, log_det = alone(train)
    independent = log_det + torch.distributions.Normal(0.0, 1.0).log_prob(u).sum(dim=1)
    densities = torch.stack([member.model.log_prob(train, outside="clamp") for member in members]).double()
    expected = densities.exp().mean(dim=0).log() - independent
    gain = rows[(rows["kind"] == "gain") & (rows["block"] == -1)]["gain"].item()
    assert gain == pytest.approx(float(expected.mean()), rel=1e-3)
    facts = rows[rows["kind"] == "model"].iloc[0]
    work = [network_work(member.model.density) for member in members]
    assert facts["density"] == sum(each.density for each in work)
    assert facts["sampling"] == sum(each.sampling for each in work) / 2


def blocks(unit: str, gains: np.ndarray) -> pd.DataFrame:
    rows = pd.DataFrame({"block": range(len(gains)), "n": 10.0, "gain": gains})
    rows = pd.concat([rows, pd.DataFrame({"block": [-1], "n": [99.0], "gain": [7.0]})]).assign(kind="gain")
    facts = dict.fromkeys(
        ("parameters", "density", "sampling", "passes", "seconds_training", "best_step"), 1.0
    )
    return pd.concat([rows, pd.DataFrame([{"kind": "model", **facts}])]).assign(unit=unit)


def test_differences_of_models_on_the_same_events_have_smaller_errors():
    common = np.random.default_rng(1).normal(size=40)
    table = pd.concat([blocks("a", common), blocks("b", common - 0.5)], ignore_index=True)
    found = likelihood_table(table)
    assert list(found.index) == ["a", "b"]
    assert found["gain"].to_numpy() == pytest.approx([common.mean(), common.mean() - 0.5])
    assert found["error"].to_numpy() == pytest.approx([common.std(ddof=1) / 40**0.5] * 2)
    assert found.loc["b", ["behind", "behind_error"]].to_numpy(float) == pytest.approx([0.5, 0.0], abs=1e-12)
    assert (found["training_gain"] == 7.0).all()
    with pytest.raises(DataError, match="no models"):
        likelihood_table(table[table["kind"] == "model"])


def test_bounds_are_the_thresholds_of_the_selection():
    bounds = event_bounds(BsmResponse.of_the_paper())
    assert tuple(bounds) == BSM_CONTINUOUS
    assert bounds["jet_4_pt"] == (20.0, None)
    assert bounds["jet_1_eta"] == (-2.5, 2.5)
    assert bounds["missing_energy_magnitude"] == bounds["m_lv"] == (0.0, None)


def test_bad_plans_are_named():
    for bad, message in (
        ({"models": ("gan",)}, "model"),
        ({"preprocessing": "none"}, "preprocessing"),
        ({"ensemble": ("mixture",)}, "several of the models"),
        ({"models": ("maf",)}, "ensemble"),
        ({"other_maps": ("maf-none",)}, "preprocessing"),
        ({"distortions": ("none",)}, "distortion"),
        ({"size": "large"}, "size"),
        ({"n_splits": 0}, "n_splits"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"n_compared": 10}, "n_compared"),
    ):
        with pytest.raises(ParameterError, match=message):
            GenerativePlan(**bad)
    with pytest.raises(DataError, match="at least 100 events"):
        TINY.make("simulation", made_up_data(60))
