"""Tables of many pairs: means, the bar, ratios of widths, blind flows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sbilib.errors import DataError
from sbilib.studies.coverage_theory import expected_bootstrap_coverage
from sbilib.studies.higgs_pairs import (
    compare_swapped_pairs,
    feature_information,
    flow_excess,
    judge_bar,
    pair_means,
    precise_summary,
    shifted_bootstrap_coverage,
    width_ratio,
)
from tests.studies.higgs_examples import SampledProblem, Weighted
from tests.studies.higgs_pair_examples import HALF, full_table

TABLE = full_table()


def test_pair_means_has_a_row_for_each_pair_and_no_ensemble() -> None:
    pairs = pair_means(TABLE)
    assert len(pairs) == 2 * 3 + 2 * 4 + 2 + 2
    good = pairs[(pairs.recipe == "modern") & (pairs.method == "flow")]
    # 9 points of 40 toys that all pairs share: 68.3% within three standard errors.
    assert np.allclose(good["mu coverage"], 0.683, atol=3 * 0.466 / math.sqrt(360))
    assert np.allclose(good["z mean width"], 2 * HALF["z"] * math.sqrt(1.04))
    assert np.allclose(good["mu coverage, bootstrap"], 0.64)
    bad = pairs[(pairs.recipe == "sluijter") & (pairs.seed == 4)]
    assert (bad["mu coverage"] < 0.5).all()
    assert (bad["mu shift"] > 1.0).all()


def test_only_published_flows_have_swaps() -> None:
    pairs = pair_means(TABLE)
    known = pairs[pairs["min swaps"].notna()]
    assert set(known.recipe + known.method) == {"sluijterflow"}
    test = compare_swapped_pairs(pairs, "mu coverage")
    assert (test.n_blind, test.n_others) == (1, 3)
    assert test.p_rank < 0.2
    assert (test.blind_outliers, test.other_outliers, test.p_outliers) == (1, 0, 0.25)
    excess = flow_excess(pairs)
    published = excess[excess.recipe == "sluijter"]
    assert np.allclose(published.groupby("swaps").excess.mean(), [0.04, 0, 0, 0])


def test_bar_counts_the_coverages_inside() -> None:
    summary = precise_summary(TABLE)
    assert judge_bar(summary, "flow")[:2] == (18, 18)
    template = judge_bar(summary, "template fit", recipe="template fit")
    assert (template.n_inside, template.lowest, template.highest) == (9, 0.60, 0.69)
    assert math.isclose(template.error, math.hypot(0.006, 0.003))
    with pytest.raises(DataError, match="no rows"):
        judge_bar(summary, "flow", recipe="other")


def test_width_ratio_divides_point_by_point() -> None:
    ratio = width_ratio(precise_summary(TABLE), ("flow", "mean_density"), ("template fit", "template fit"))
    assert len(ratio) == 18
    assert np.allclose(ratio["ratio"], 1 / 1.2)
    assert (ratio["error"] < 0.003).all()


@pytest.mark.parametrize("k", [2, 9, 50])
def test_bootstrap_coverage_without_shift_is_the_closed_form(k: int) -> None:
    assert math.isclose(shifted_bootstrap_coverage(0.0, k=k), expected_bootstrap_coverage(k), rel_tol=1e-12)
    share = shifted_bootstrap_coverage(0.0, k=k, count_share=0.4)
    assert math.isclose(share, expected_bootstrap_coverage(k, count_share=0.4), rel_tol=1e-12)
    assert shifted_bootstrap_coverage(0.5, k=k) < shifted_bootstrap_coverage(0.0, k=k)


class Uniform(SampledProblem):
    """The logarithm of the first feature is uniform in a range of width one and moves by log z."""

    def all_events(self, component: str, nuisance: float) -> Weighted:
        logs = (torch.arange(self.size, dtype=torch.float64) + 0.5) / self.size
        events = torch.stack([nuisance * logs.exp(), logs], dim=1)
        return Weighted(events, torch.ones(self.size))


def test_information_of_a_uniform_feature_is_the_exact_one() -> None:
    # A uniform law moved by two amounts a apart: mixing them has the entropy a log 2 more.
    problem = Uniform(size=50_000)
    apart = math.log(1.1 / 0.9)
    found = feature_information(problem, "signal", n_nodes=2, n_bins=400)
    assert math.isclose(found, apart * math.log(2), abs_tol=0.004)


def test_missing_rows_are_named() -> None:
    with pytest.raises(DataError, match="no pairs"):
        pair_means(TABLE[TABLE.recipe == "template fit"])
    with pytest.raises(DataError, match="no ensembles"):
        precise_summary(TABLE[TABLE.kind == "toy"])
