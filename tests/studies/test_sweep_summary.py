"""Summaries of a sweep: on tables whose means, best rates and outliers are known."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from sbilib.errors import DataError, ParameterError
from sbilib.problems import GaussianToy
from sbilib.studies import METRICS
from sbilib.studies.sweep import Sweep
from sbilib.studies.sweep_summary import (
    best_rates,
    best_rates_beside_published,
    blind_loss,
    chosen_models,
    compare_swaps,
    estimated_hours,
    flow_losses,
    metrics_by_swaps,
    model_means,
    summarize_sweep,
)


def rows(method: str, rate: float, seed: int, value: float, **facts: object) -> list[dict[str, object]]:
    """Two test sets of one model whose metrics have the mean ``value``."""
    return [
        {"case": "large", "method": method, "learning_rate": rate, "seed": seed, "test_set": k}
        | {"mu": 0.1, "z": 0.5, "diverged": False, "signal swaps": pd.NA, "background swaps": pd.NA}
        | dict.fromkeys(METRICS, value + shift)
        | {"signal validation loss": value, "background validation loss": 10 * value}
        | facts
        for k, shift in enumerate((-0.1, 0.1))
    ]


def table(*models: list[dict[str, object]]) -> pd.DataFrame:
    frame = pd.DataFrame([row for model in models for row in model])
    counts = {"signal swaps": "Int64", "background swaps": "Int64"}
    return frame.astype({**counts, **dict.fromkeys(METRICS, "float64"), "learning_rate": "float64"})


LOST = {"diverged": True} | dict.fromkeys(METRICS, math.nan)
SMALL = table(
    rows("flow", 1e-3, 1, 0.5, **{"signal swaps": 2, "background swaps": 1}),
    rows("flow", 1e-3, 2, 0.7, **{"signal swaps": 0, "background swaps": 3}),
    rows("flow", 1e-2, 1, 0.9, **{"signal swaps": 2, "background swaps": 1}),
    rows("flow", 1e-2, 2, 0.0, **LOST),
    rows("flow", 1e-1, 1, 0.0, **LOST),
    rows("flow", 1e-1, 2, 0.0, **LOST),
    rows("classifier", 1e-3, 1, 0.8),
    rows("classifier", 1e-3, 2, 0.8),
    rows("classifier", 1e-2, 1, 0.3),
    rows("classifier", 1e-2, 2, 0.4),
    rows("truth", math.nan, 1, 1.0),
    rows("truth", math.nan, 2, 1.0),
)


def test_models_are_averaged_over_their_test_sets():
    means = model_means(SMALL)
    assert len(means) == 9, "three of the twelve models diverged"
    flows = means[means["method"] == "flow"]
    np.testing.assert_allclose(flows["mu coverage"], [0.5, 0.7, 0.9])
    assert flows["min swaps"].tolist() == [1, 0, 1]
    assert means.loc[means["method"] != "flow", "min swaps"].isna().all()


def test_summary_has_mean_and_scatter_over_models_and_counts_the_diverged():
    summary = summarize_sweep(SMALL)
    first = summary.loc["large", "flow", 1e-3]
    assert first["total overlap", "mean"] == pytest.approx(0.6)
    assert first["total overlap", "std"] == pytest.approx(0.2 / math.sqrt(2))
    assert summary["models", ""].tolist() == [2, 1, 0, 2, 2, 2]
    assert summary["diverged", ""].tolist() == [0, 1, 2, 0, 0, 0]
    assert math.isnan(summary.loc["large", "flow", 1e-2]["total overlap", "std"])
    truth = summary.xs("truth", level="method")
    assert truth["mu overlap", "mean"].tolist() == pytest.approx([1.0])


def test_best_rate_has_the_largest_mean_and_is_not_one_where_most_models_diverged():
    assert best_rates(SMALL) == {("large", "flow"): 1e-2, ("large", "classifier"): 1e-3}
    lost = SMALL.assign(diverged=SMALL["diverged"] | (SMALL["method"] == "flow"))
    with pytest.raises(DataError, match="no learning rate of the flow, large distance"):
        best_rates(lost)
    with pytest.raises(DataError, match="every model of the sweep diverged"):
        best_rates(SMALL.assign(diverged=True))


def test_best_rates_stand_beside_those_of_the_source():
    beside = best_rates_beside_published({("large", "flow"): 1e-4, ("large", "classifier"): 3e-5})
    assert beside.loc["flow"].tolist() == [3e-6, 1e-4]
    assert beside.loc["classifier"].tolist() == [3e-5, 3e-5]


def test_chosen_models_are_those_at_the_chosen_rates_and_the_exact_ones():
    chosen = chosen_models(SMALL, best_rates(SMALL), "large")
    assert chosen[["method", "seed"]].values.tolist() == [
        ["flow", 1],
        ["classifier", 1],
        ["classifier", 2],
        ["truth", 1],
        ["truth", 2],
    ]


def flows(blind: list[float], others: list[float]) -> pd.DataFrame:
    models = [
        rows("flow", 1e-3, seed, value, **{"signal swaps": swaps, "background swaps": 2})
        for seed, (value, swaps) in enumerate([*((v, 0) for v in blind), *((v, 1) for v in others)])
    ]
    return model_means(table(*models))


def test_metrics_are_averaged_by_the_smaller_number_of_swaps():
    by_swaps = metrics_by_swaps(flows([0.1, 0.3], [0.8]))
    assert by_swaps["models", ""].tolist() == [2, 1]
    assert by_swaps["mu overlap", "mean"].tolist() == pytest.approx([0.2, 0.8])
    assert by_swaps.loc[0, ("mu overlap", "error")] == pytest.approx(0.1)
    assert math.isnan(by_swaps.loc[1, ("mu overlap", "error")])


def test_blind_flows_that_are_all_worse_give_the_p_values_of_counting():
    """3 blind of 20: all ranks below have probability 1 / (20 choose 3); so has the choice of 3 outliers."""
    others = np.linspace(0.90, 0.95, 17)
    result = compare_swaps(flows([0.2, 0.3, 0.4], list(others)))
    assert (result.n_blind, result.n_others) == (3, 17)
    assert (result.blind_outliers, result.other_outliers) == (3, 0)
    chance = 1 / math.comb(20, 3)
    assert result.p_outliers == pytest.approx(chance)
    assert result.p_rank == pytest.approx(chance, rel=1e-6)


def test_blind_flows_like_the_others_give_no_small_p_value():
    result = compare_swaps(flows([0.91, 0.93], [0.90, 0.92, 0.94, 0.95]))
    assert result.p_rank > 0.2
    assert result.p_outliers == 1.0


def test_without_two_groups_there_is_no_p_value():
    result = compare_swaps(flows([], [0.8, 0.9]))
    assert (result.n_blind, result.n_others) == (0, 2)
    assert math.isnan(result.p_rank)
    assert math.isnan(result.p_outliers)
    assert compare_swaps(flows([0.1], [0.2]).iloc[:0]).n_others == 0


def test_rates_must_not_be_mixed():
    with pytest.raises(ParameterError, match="one case and one learning rate"):
        compare_swaps(model_means(SMALL))


def test_every_flow_has_its_own_loss_and_swaps():
    losses = flow_losses(model_means(SMALL))
    assert len(losses) == 2 * 3
    row = losses[(losses["component"] == "background") & (losses["seed"] == 2)].iloc[0]
    assert (row["swaps"], row["loss"]) == (3, pytest.approx(7.0))


def test_time_is_linear_in_models_steps_and_tests():
    done = Sweep.with_models(
        seed=1, n_models=2, n_steps=10, test_repeats=1, n_bootstrap=10, pairs_per_chunk=99
    )
    chunks = [
        {
            "method": chunk.method,
            "models": len(chunk.models),
            "training_seconds": 0.0 if chunk.method == "truth" else 1800.0,
            "evaluation_seconds": 900.0,
        }
        for chunk in done.chunks()
    ]
    manifest = {"sweep": done.to_dict(), "chunks": chunks}
    assert estimated_hours(manifest, done) == pytest.approx(4 * 0.5 + 6 * 0.25)
    more = Sweep.with_models(seed=5, n_models=6, n_steps=20, test_repeats=2, n_bootstrap=20)
    assert estimated_hours(manifest, more) == pytest.approx(3 * (2 * 4 * 0.5 + 4 * 6 * 0.25))


@pytest.mark.parametrize("radius", [2.0, 0.5])
def test_blind_loss_is_the_information_of_one_feature(radius):
    """Monte Carlo over 20,000 events (six standard errors), and the limit of a Gaussian channel."""
    rng = np.random.default_rng(1)
    angles, nodes = rng.uniform(0, math.pi / 2, 20_000), np.linspace(0, math.pi / 2, 2001)[1::2]
    x = radius * np.cos(angles) + rng.normal(size=angles.size)
    marginal = np.exp(-0.5 * (x[:, None] - radius * np.cos(nodes)) ** 2).mean(axis=1)
    gain = -0.5 * (x - radius * np.cos(angles)) ** 2 - np.log(marginal)
    expected = blind_loss(GaussianToy(radius))
    assert abs(gain.mean() - expected) < 6 * gain.std() / math.sqrt(gain.size)
    assert expected < 0.5 * math.log1p(radius**2 * (0.5 - 4 / math.pi**2))
