"""Comparisons of samples: faults are found where they can be, and nowhere else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from sbilib.diagnostics import compare_features
from sbilib.errors import DataError, ParameterError
from sbilib.simulation import BSM_CONTINUOUS
from sbilib.simulation.bsm_schema import bsm_columns
from sbilib.studies.generative_distortions import DISTORTIONS, distorted_events
from sbilib.studies.generative_measures import (
    MeasureSettings,
    feature_divergences,
    headline,
    impossible_events,
    measure_sample,
)
from tests.studies.generative_events import made_up_events

SETTINGS = MeasureSettings(
    n_bins=10, n_splits=60, n_bootstrap=25, n_directions=5, n_permutations=199, n_shown=12
)
PLACE = {name: number for number, name in enumerate(BSM_CONTINUOUS)}


def sample(n: int, seed: int) -> torch.Tensor:
    return made_up_events(n, seed)[:, bsm_columns(BSM_CONTINUOUS)]


SIMULATION, REFERENCE, SPARE = sample(1500, 1), sample(1500, 2), sample(1500, 3)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    parts = {"simulation": SIMULATION, "copula": None, "shuffled": None}
    rows = []
    for unit, events in parts.items():
        if events is None:
            events = distorted_events(SIMULATION, unit, names=BSM_CONTINUOUS, seed=4)
        found = measure_sample(events, REFERENCE, SPARE, BSM_CONTINUOUS, SETTINGS, seed=5)
        rows.append(found.assign(unit=unit))
    return pd.concat(rows, ignore_index=True)


def test_equal_samples_pass_and_the_copula_fails_only_where_it_can(table: pd.DataFrame):
    good, bad = headline(table, "simulation"), headline(table, "copula")
    # Equal samples fail one of these with a chance of about 6%, at this seed they do not.
    for test in ("trees", "network", "sliced"):
        assert good[f"{test}_p"] > 0.02
    # A ratio is chi-square distributed with 9 degrees of freedom, over 9: above 3.5 once in 5000 features.
    assert good["kl_worst"] < 3.5 > bad["kl_worst"]
    for kind in ("correlation", "rank_correlation"):
        assert good[kind] < 1.4 * good[f"{kind}_by_chance"]
    assert bad["trees_p"] == 1 / 200
    assert max(bad["trees"], bad["network"]) > max(good["trees"], good["network"]) + 0.1


def test_a_shuffled_feature_has_the_same_divergences(table: pd.DataFrame):
    first, second = (feature_divergences(table, unit) for unit in ("simulation", "shuffled"))
    np.testing.assert_allclose(first.value, second.value, rtol=1e-9)
    assert first.names == BSM_CONTINUOUS


def test_divergences_come_back_as_they_were():
    found = compare_features(
        SIMULATION, REFERENCE, seed=5, names=BSM_CONTINUOUS, spare=SPARE, n_bins=10, n_splits=3, n_bootstrap=2
    )
    rows = found.table().reset_index().assign(kind="divergence", unit="x", disjoint=found.disjoint)
    rows["n_bins"] = np.repeat(found.n_bins, 5)
    again = feature_divergences(rows, "x")
    for name in ("value", "error", "baseline", "baseline_low", "baseline_high", "p_value"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
    assert (again.names, again.n_bins, again.disjoint) == (found.names, found.n_bins, found.disjoint)


def test_histograms_count_the_events_inside(table: pd.DataFrame):
    rows = table[
        (table["kind"] == "histogram") & (table["unit"] == "simulation") & (table["feature"] == "m_bb")
    ]
    assert len(rows) == 12
    low, high = float(rows["low"].min()), float(rows["high"].max())
    expected = REFERENCE[:, PLACE["m_bb"]].double().quantile(torch.tensor([0.001, 0.999]).double())
    assert [low, high] == pytest.approx(expected.tolist())
    for which, events in (("generated", SIMULATION), ("reference", REFERENCE)):
        values = events[:, PLACE["m_bb"]].double()
        assert rows[which].sum() == int(((values >= low) & (values <= high)).sum())
        assert set(rows[f"n_{which}"]) == {1500.0}


def test_simulated_events_are_possible_and_those_of_a_copula_are_not():
    assert impossible_events(SIMULATION, BSM_CONTINUOUS) == {"jets out of order": 0, "masses too small": 0}
    copula = distorted_events(SIMULATION, "copula", names=BSM_CONTINUOUS, seed=4)
    assert min(impossible_events(copula, BSM_CONTINUOUS).values()) > 0.001


def test_each_fault_is_what_it_says():
    faulty = {name: distorted_events(SIMULATION, name, names=BSM_CONTINUOUS, seed=4) for name in DISTORTIONS}
    bb, total = PLACE["m_bb"], PLACE["m_wwbb"]
    others = [number for number in range(18) if number != bb]
    assert torch.allclose(faulty["scaled"][:, bb], 1.03 * SIMULATION[:, bb])
    assert torch.equal(faulty["scaled"][:, others], SIMULATION[:, others])
    moved = faulty["shuffled"][:, bb] != SIMULATION[:, bb]
    assert 0.08 < float(moved.double().mean()) <= 0.1
    assert torch.equal(faulty["shuffled"].sort(dim=0).values, SIMULATION.sort(dim=0).values)
    kept = SIMULATION[:, total].sort().values[1498]
    assert faulty["cut"].shape == SIMULATION.shape
    assert float(faulty["cut"][:, total].max()) <= float(kept)
    ranks = [
        torch.corrcoef(x.argsort(dim=0).argsort(dim=0).double().T) for x in (SIMULATION, faulty["copula"])
    ]
    assert float((ranks[0] - ranks[1]).abs().max()) < 0.12  # 153 pairs, each with an error of 0.03


def test_bad_input_is_named(table: pd.DataFrame):
    with pytest.raises(ParameterError, match="fault must be one of"):
        distorted_events(SIMULATION, "none", names=BSM_CONTINUOUS, seed=1)
    with pytest.raises(ParameterError, match="m_wwbb"):
        distorted_events(SIMULATION, "cut", names=["m_bb"] * 18, seed=1)
    with pytest.raises(DataError, match="its units are simulation, copula, shuffled"):
        headline(table, "flow")
    with pytest.raises(ParameterError, match="n_bins"):
        MeasureSettings(n_bins=1)
