"""Means and errors over splits and test points, and widths compared toy by toy."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from sbilib.errors import DataError
from sbilib.likelihood import ScanGrid
from sbilib.problems import published_test_sets
from sbilib.studies.higgs_ratio import (
    TABLE_METRICS,
    best_fit_spread,
    compare_widths,
    higgs_table,
    mean_over_points,
    summarize_splits,
)
from tests.studies.higgs_examples import SampledProblem


def test_rows_name_the_split_of_their_test_set() -> None:
    problem = SampledProblem()
    sets = published_test_sets(problem, torch.Generator().manual_seed(1), n_events=450)[:4]
    grid = ScanGrid.uniform(nuisance_range=problem.scan_range)
    table = higgs_table({"exact": problem}, sets, n_splits=2, grid=grid, n_bootstrap=4, seed=1)
    assert table["split"].tolist() == [1, 1, 2, 2]
    assert set(TABLE_METRICS) <= set(table.columns)
    with pytest.raises(DataError, match="do not divide"):
        higgs_table({"exact": problem}, sets, n_splits=3, grid=grid, n_bootstrap=4, seed=1)


def test_error_is_that_between_splits() -> None:
    values = {1: [0.5, 0.7], 2: [0.6, 0.8], 3: [0.7, 0.9]}
    rows = [
        {"method": "a", "split": split, **dict.fromkeys(TABLE_METRICS, value)}
        for split, pair in values.items()
        for value in pair
    ]
    summary = summarize_splits(pd.DataFrame(rows)).loc["a"]
    assert summary["mu coverage", "mean"] == pytest.approx(0.7)
    # Means of splits are 0.6, 0.7, 0.8; test points within a split differ by more and do not count.
    assert summary["mu coverage", "error"] == pytest.approx(0.1 / math.sqrt(3))


def test_reservoir_error_does_not_average_out() -> None:
    rows = [
        {"method": "a", "parameter": "mu", "coverage": 0.68, "error": 0.03, "reservoir_error": 0.004,
         "width": 0.1, "width_error": 0.003, "pull": pull, "open": 0.0, "k": 100.0}
        for pull in [0.1] * 8 + [-0.4]
    ]  # fmt: skip
    (row,) = mean_over_points(pd.DataFrame(rows)).to_dict("records")
    assert row["coverage_error"] == pytest.approx(math.hypot(0.01, 0.004))
    assert row["width_error"] == pytest.approx(0.001)
    assert row["pull"] == pytest.approx(0.4)


def toys(n: int, width: np.ndarray, **columns: object) -> pd.DataFrame:
    return pd.DataFrame(
        {"mu": 0.2, "z": 1.0, "toy": range(n), "mu_lower": 0.0, "mu_upper": width, "z_lower": 0.9,
         "z_upper": 1.0, **columns}
    )  # fmt: skip


def test_error_of_the_width_ratio_uses_that_toys_are_shared() -> None:
    width = np.random.default_rng(1).uniform(0.05, 0.15, 1000)
    table = pd.concat([toys(1000, width, method="a"), toys(1000, 0.9 * width, method="b")])
    row = compare_widths(table, baseline="a").set_index("parameter").loc["mu"]
    assert row["ratio"] == pytest.approx(0.9)
    assert row["error"] < 1e-12
    with pytest.raises(DataError, match="no method 'c'"):
        compare_widths(table, baseline="c")


def test_open_intervals_are_left_out_of_the_ratio() -> None:
    width = np.array([0.1, 0.1, np.inf, 0.1])
    table = pd.concat([toys(4, np.full(4, 0.1), method="a"), toys(4, width, method="b")])
    assert compare_widths(table, baseline="a").set_index("parameter").loc["mu", "ratio"] == pytest.approx(1.0)


def test_spread_is_twice_the_error_of_best_fits() -> None:
    generator = np.random.default_rng(2)
    hats = {"mu_hat": 0.2 + 0.03 * generator.normal(size=4000), "z_hat": 1.004 * np.ones(4000)}
    spread = best_fit_spread(toys(4000, np.full(4000, 0.1), method="a", **hats)).set_index("parameter")
    # Four standard errors: a false alarm in 16 000.
    assert abs(spread.loc["mu", "spread"] - 0.06) < 4 * spread.loc["mu", "error"]
    assert spread.loc["mu", "error"] == pytest.approx(0.06 / math.sqrt(8000), rel=0.05)
    assert spread.loc["z", "spread"] == pytest.approx(0.008)
