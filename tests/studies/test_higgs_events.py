"""Cut flow, rates and means of the Higgs page are what can be counted by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from sbilib.errors import DataError
from sbilib.problems.base import COMPONENTS
from sbilib.problems.higgs import HiggsTauTau
from sbilib.problems.higgs_data import EventTable, EventTables
from sbilib.simulation.files import Manifest
from sbilib.studies.higgs_events import (
    REFERENCE_MEANS,
    beside_reference,
    combined_differences,
    cut_flow_table,
    mean_differences,
    pass_rates,
    relative_slope,
    relative_yields,
    worst_features,
)


def problem(n_events: int = 4000, *, weights: torch.Tensor | None = None) -> HiggsTauTau:
    """Leptons of 30 GeV back to back with taus of an exponential spectrum above 21 GeV."""
    tables = {}
    for number, (component, slope) in enumerate(zip(COMPONENTS, (20.0, 10.0), strict=True)):
        generator = torch.Generator().manual_seed(number)
        events = torch.tensor([[30.0, 0, 0, 40.0, 0, 3.0] + 6 * [-25.0] + [0, 0, 10.0, 1.0]])
        events = events.repeat(n_events, 1)
        events[:, 3] = 21.0 - slope * torch.rand(n_events, generator=generator).clamp(min=1e-6).log()
        tables[component] = {"train": EventTable(events, weights)}
    return HiggsTauTau(data=EventTables(tables, tau_threshold=21.0), threshold="realistic")


def test_shares_are_of_the_produced_events():
    flow = {"produced": 1000, "preselected": 200, "stored": 50}
    manifest = Manifest((), 21.0, {"cut_flow": {"signal": flow, "background": flow}})
    table = cut_flow_table(manifest)
    assert table["signal", "share"].tolist() == [1.0, 0.2, 0.05]
    assert table["background", "events"].tolist() == [1000, 200, 50]
    with pytest.raises(DataError, match="no cut flow"):
        cut_flow_table(Manifest((), 21.0))


def test_rates_of_an_exponential_spectrum():
    """N(p > 26/z) / N(p > 26) = exp((26 - 26/z) / slope), within five standard errors."""
    z = torch.tensor([0.95, 1.0, 1.05], dtype=torch.float64)
    yields = relative_yields(problem(), z)
    for component, slope in zip(COMPONENTS, (20.0, 10.0), strict=True):
        part = yields.loc[component]
        expected = np.exp((26 - 26 / z.numpy()) / slope)
        assert (np.abs(part.counted - expected) <= 5 * part.error + 1e-12).all()
        assert (np.abs(part.smooth - part.counted) <= 3 * part.error + 1e-12).all()
        assert part.counted[1.0] == 1.0


def test_slope_of_an_exponential_spectrum():
    """t f(t) / N(> t) = t / slope; five standard errors are 9%."""
    pt = 21.0 - 10.0 * torch.rand(200_000, generator=torch.Generator().manual_seed(4)).log()
    assert relative_slope(pt, 26.0) == pytest.approx(2.6, rel=0.09)


def test_means_are_those_of_events_above_the_threshold():
    table = beside_reference(problem())
    assert len(table) == sum(map(len, REFERENCE_MEANS.values()))
    events = HiggsTauTau(data=problem().data, features=("PRI_had_pt",)).all_events("signal").events
    row = table.loc[("signal", "PRI_had_pt")]
    assert row.ours == pytest.approx(float(events.mean()), rel=1e-9)
    assert row.ours > 26.0
    error = float(events.std()) / len(events) ** 0.5
    assert row.difference == pytest.approx((row.ours - 52.9) / np.hypot(1.34, error), rel=1e-3)


def test_weights_count():
    heavy = torch.ones(4000, dtype=torch.float64)
    heavy[:2000] = 1e-9
    means = beside_reference(problem(weights=heavy)).ours
    plain = beside_reference(problem()).ours
    assert means["signal", "PRI_had_pt"] != plain["signal", "PRI_had_pt"]


def test_differences_have_the_error_of_both_means():
    row = {"stage": "s", "component": "signal", "feature": "x", "mean_plain": 1.0, "mean_fast": 1.5}
    row |= {"std_plain": 3.0, "std_fast": 4.0, "n_plain": 9, "n_fast": 16, "p_value": 0.3}
    found = mean_differences(pd.DataFrame([row, row | {"stage": "t"}]), "s", ["x"])
    assert len(found) == 1
    assert found.difference.item() == 0.5
    assert found.error.item() == pytest.approx(2**0.5)
    assert found["p-value"].item() == 0.3


def test_differences_are_combined_by_inverse_variance():
    def table(x: float, x_std: float, y: float) -> pd.DataFrame:
        common = {"component": "signal", "stage": "s", "p_value": 0.5, "n_plain": 50, "n_fast": 50}
        rows = [
            common
            | {"feature": name, "mean_plain": 1.0, "mean_fast": mean, "std_plain": std, "std_fast": std}
            for name, mean, std in (("y", y, 5.0), ("x", x, x_std))
        ]
        return pd.DataFrame(rows)

    found = combined_differences([table(3.0, 5.0, 1.0), table(6.0, 10.0, 3.0)], "s")
    assert list(found.index) == ["x", "y"]
    # Differences 2 and 5 with errors 1 and 2; 0 and 2 with error 1 each.
    np.testing.assert_allclose(found.difference, [(2 + 5 / 4) / (1 + 1 / 4), 1.0])
    np.testing.assert_allclose(found.error, [(1 + 1 / 4) ** -0.5, 2**-0.5])
    np.testing.assert_allclose(found.pull, found.difference / found.error)


def test_the_worst_feature_is_looked_at_again():
    def row(component: str, stage: str, feature: str, p_value: float, mean: float) -> dict[str, object]:
        names = {"component": component, "stage": stage, "feature": feature, "p_value": p_value}
        values = {"mean_plain": mean, "mean_fast": 0.0, "std_plain": 3.0, "std_fast": 4.0}
        return names | values | {"n_plain": 9, "n_fast": 16}

    first = pd.DataFrame(
        [
            row("signal", "s", "x", 0.2, 1.0),
            row("signal", "t", "x", 0.1, 2.0),
            row("background", "s", "y", 0.01, 3.0),
            row("background", "s", "x", 0.5, 4.0),
        ]
    )
    again = {
        "signal": pd.DataFrame([row("signal", "s", "x", 0.7, 5.0), row("signal", "t", "x", 0.6, 6.0)]),
        "background": pd.DataFrame([row("background", "s", "y", 0.8, 7.0)]),
    }
    found = worst_features(first, again)
    assert found["p-value"].tolist() == [0.1, 0.6, 0.01, 0.8]
    assert found["plain"].tolist() == [2.0, 6.0, 3.0, 7.0]
    assert found.loc["signal", "stage"].tolist() == ["t", "t"]
    assert found.loc["background", "feature"].tolist() == ["y", "y"]
    with pytest.raises(DataError, match="not tested again"):
        worst_features(first, again | {"background": again["signal"]})


def test_shares_differ_in_standard_errors():
    run = {"n_selected": 500, "n_produced": 1000}
    other = {"n_selected": 600, "n_produced": 1000}
    runs = {"plain": dict.fromkeys(COMPONENTS, run), "fast": dict.fromkeys(COMPONENTS, other)}
    rates = pass_rates({"runs": runs})
    assert rates.loc["signal", "difference"] == pytest.approx(0.1 / np.sqrt(0.25e-3 + 0.24e-3))
    alone = pass_rates({"runs": {route: {"background": part["background"]} for route, part in runs.items()}})
    assert list(alone.index) == ["background"]
