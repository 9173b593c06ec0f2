"""Coverage measured and expected.  Statistical tests use fixed seeds; false-alarm rates are stated."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from sbilib.errors import CheckpointError, ParameterError
from sbilib.likelihood import fit_toys
from sbilib.problems import GaussianToy, make_toys
from sbilib.studies import (
    bootstrap_coverage,
    count_variance_share,
    counting_skewness,
    edge_levels,
    expected_bootstrap_coverage,
    expected_fixed_count_coverage,
    predicted_level,
    summarize_bootstrap_coverage,
    summarize_toy_coverage,
    toy_coverage,
)
from sbilib.studies.coverage import nuisance_nodes
from sbilib.studies.kept import kept_table

NOMINAL = math.erf(1 / math.sqrt(2))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SBILIB_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("k", "coverage"),
    [(1, 0.5205), (2, 0.586), (3, 0.614), (5, 0.639), (9, 0.657), (20, 0.671), (50, 0.678)],
)
def test_closed_form_has_the_known_values(k, coverage):
    assert expected_bootstrap_coverage(k) == pytest.approx(coverage, abs=6e-4)


def test_no_bias_is_left_where_counts_are_everything_or_the_test_set_is_infinite():
    assert expected_bootstrap_coverage(1, count_share=1.0) == pytest.approx(NOMINAL)
    assert expected_bootstrap_coverage(1e12) == pytest.approx(NOMINAL)
    assert expected_fixed_count_coverage(0.0) == pytest.approx(NOMINAL)


@pytest.mark.parametrize("k", [1, 4])
def test_closed_form_describes_the_bootstrap_of_a_gaussian_mean(k):
    """Means of bootstrap sets of 200 from 500 test sets; false alarm 0.05% (3.5 standard errors)."""
    rng, n, n_sets = np.random.default_rng(k), 200, 500
    events = rng.normal(size=(n_sets, k * n))
    draws = rng.integers(k * n, size=(n_sets, 60, n))
    means = np.take_along_axis(events[:, None, :], draws, axis=2).mean(axis=2)
    coverage = (np.abs(means) < 1 / math.sqrt(n)).mean(axis=1)
    error = coverage.std() / math.sqrt(n_sets)
    assert abs(coverage.mean() - expected_bootstrap_coverage(k)) < 3.5 * error


def test_toys_of_the_exact_likelihood_cover():
    """900 toys in each case; false alarm of the four comparisons together 0.2% (3.5 standard errors)."""
    for radius in (2.0, 0.5):
        table = toy_coverage(GaussianToy(radius), n_toys=100, repeats=1, seed=3)
        summary = summarize_toy_coverage(table)
        assert summary["n_toys"].tolist() == [900, 900]
        assert ((summary["coverage"] - NOMINAL).abs() < 3.5 * summary["error"]).all()


def test_toys_with_fixed_counts_cover_as_expected():
    """450 toys; false alarm 0.1%.  The signal ratio covers almost always, the other one as before."""
    toy = GaussianToy.large_distance()
    table = toy_coverage(toy, n_toys=50, repeats=1, fixed_counts=True, seed=4)
    coverage = summarize_toy_coverage(table).set_index("parameter")["coverage"]
    share = count_variance_share(toy, signal_ratio=0.2, nuisance=0.8, n_events=20_000, seed=1)
    assert coverage["mu"] == pytest.approx(expected_fixed_count_coverage(share), abs=0.015)
    assert abs(coverage["z"] - NOMINAL) < 3.3 * math.sqrt(0.217 / 450)


def test_fixed_counts_of_test_sets_make_the_exception():
    """18 test sets at k = 1: fixed counts show no bias, binomial counts the full one; false alarm 0.1%."""
    toy, facts = GaussianToy.large_distance(), {"k": 1, "repeats": 2, "n_bootstrap": 40, "seed": 5}
    fixed = bootstrap_coverage(toy, **facts)
    binomial = bootstrap_coverage(toy, fixed_counts=False, **facts)
    summary = summarize_bootstrap_coverage(pd.concat([fixed, binomial]))
    rows = summary.query("parameter == 'mu'").set_index("fixed_counts")
    share = count_variance_share(toy, signal_ratio=0.2, nuisance=0.8, n_events=20_000, seed=1)
    for counts, expected in ((True, share), (False, 0.0)):
        distance = rows.loc[counts, "coverage"] - expected_bootstrap_coverage(1, count_share=expected)
        assert abs(distance) < 3.5 * rows.loc[counts, "error"]
    assert rows.loc[True, "coverage"] > rows.loc[False, "coverage"] + 0.05


@pytest.mark.parametrize("radius", [2.0, 0.5])
def test_share_of_counts_agrees_with_widths_of_fitted_intervals(radius):
    """The Fisher information and the fits measure the same variance; 3% is five errors of the mean width."""
    toy, ratio, n = GaussianToy(radius), 0.2, 1000
    share = count_variance_share(toy, signal_ratio=ratio, nuisance=math.pi / 4, n_events=50_000, seed=2)
    generator = torch.Generator().manual_seed(6)
    events = make_toys(
        toy, signal_ratio=ratio, nuisance=math.pi / 4, n_toys=100, n_events=n, generator=generator
    )
    fits = fit_toys(toy, events, nuisance_nodes(toy))
    sigma = fits.ratio_interval.width.median().item() / 2
    counting = (1 + ratio) * math.sqrt(ratio / n)
    assert math.sqrt(share) == pytest.approx(counting / sigma, rel=0.03)


def test_results_are_kept_and_repeatable(cache):
    toy = GaussianToy.large_distance()
    facts = {"k": 1, "set_size": 200, "repeats": 1, "n_bootstrap": 3}
    first = bootstrap_coverage(toy, seed=1, **facts)
    files = list(cache.glob("*.parquet"))
    assert len(files) == 1
    pd.testing.assert_frame_equal(first, bootstrap_coverage(toy, seed=1, **facts))
    files[0].write_bytes(b"not a table")
    pd.testing.assert_frame_equal(first, bootstrap_coverage(toy, seed=1, **facts))
    assert not first.equals(bootstrap_coverage(toy, seed=2, **facts))
    assert list(cache.glob("[!b]*")) == []


def test_an_interrupted_computation_leaves_nothing_behind(cache):
    def stop() -> pd.DataFrame:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept_table("demo", {}, stop)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("damage", ["truncated", "header", "footer"])
def test_a_damaged_table_is_made_anew(cache, damage):
    table = pd.DataFrame({"x": range(100)})
    kept_table("demo", {}, lambda: table)
    (path,) = cache.iterdir()
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        del content[len(content) // 2 :]
    else:
        # A table ends with its description, the length of that in four bytes, and a mark of four bytes.
        start = 0 if damage == "header" else len(content) - 108
        content[start : start + 100] = bytes(100)
    path.write_bytes(content)
    pd.testing.assert_frame_equal(kept_table("demo", {}, lambda: table), table)
    pd.testing.assert_frame_equal(pd.read_parquet(path), table)


def test_a_full_disk_leaves_the_kept_tables_alone(cache, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    kept_table("demo", {"seed": 1}, lambda: pd.DataFrame({"x": [1]}))
    before = {path: path.read_bytes() for path in cache.iterdir()}
    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(CheckpointError, match="No space left on device; free some space"):
        kept_table("demo", {"seed": 2}, lambda: pd.DataFrame({"x": [2]}))
    assert {path: path.read_bytes() for path in cache.iterdir()} == before


def test_groups_of_toys_are_averaged_with_their_sizes():
    """130 toys are fitted as 100 and 30."""
    table = toy_coverage(GaussianToy(2.0), n_toys=130, repeats=1, n_events=50, seed=1)
    assert len(table) == 18
    assert (table["n_toys"] == 130).all()
    assert np.allclose(table["coverage"] * 130, (table["coverage"] * 130).round(), atol=1e-6)


@pytest.mark.parametrize("bad", [{"k": 0}, {"set_size": 0}, {"repeats": 0}, {"n_bootstrap": 0}])
def test_bad_numbers_are_refused(bad):
    with pytest.raises(ParameterError, match=next(iter(bad))):
        bootstrap_coverage(GaussianToy(2.0), **({"k": 1, "seed": 1} | bad))


def test_levels_at_the_edges_follow_from_the_derivatives_of_the_quartic():
    table = edge_levels(GaussianToy.small_distance(), windows=[4.5], k=1, n_bootstrap=5, seed=2)
    inside = table[~table["open"]]
    for edge in ("lower", "upper"):
        expected = [
            predicted_level(row.skewness, kurtosis=row.kurtosis, upper=edge == "upper")
            for row in inside.itertuples()
        ]
        assert np.allclose(inside[edge], expected, atol=1e-6)


def test_exact_crossings_and_quartic_agree_on_the_skewness():
    table = edge_levels(GaussianToy.large_distance(), windows=[4.5, math.inf], k=1, n_bootstrap=5, seed=2)
    ratio = table.query("parameter == 'mu' and window == 4.5")
    assert np.allclose(-6 * ratio["asymmetry"], ratio["skewness"], rtol=0.1)
    assert (ratio["lower"] > NOMINAL).all()
    assert (ratio["upper"] < NOMINAL).all()
    whole = table.query("parameter == 'mu' and window == inf")
    assert whole["shift"].abs().median() > 100 * ratio["shift"].abs().median()


def test_counting_skewness_is_the_third_derivative():
    n, ratio = 1000, torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    n_signal = n * ratio.item() / (1 + ratio.item())
    value = -n_signal * ratio.log() + n * torch.log1p(ratio)
    derivatives = []
    for _ in range(3):
        (value,) = torch.autograd.grad(value, ratio, create_graph=True)
        derivatives.append(value.item())
    assert derivatives[0] == pytest.approx(0, abs=1e-9)
    assert counting_skewness(0.3, n) == pytest.approx(derivatives[2] / derivatives[1] ** 1.5)
