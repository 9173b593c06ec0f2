"""Second opinions on made-up pairs whose errors are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sbilib.errors import DataError, ParameterError
from sbilib.studies.higgs_agreement import toy_disagreement
from sbilib.studies.higgs_warnings import PairEstimates, roc_band, second_opinions, wrong_after_agreement
from tests.studies.higgs_pair_examples import full_table, toy_rows

TABLE = full_table()
BOTH = ("sluijter", "modern")


def _estimates(parameter: str = "mu") -> PairEstimates:
    return PairEstimates.of_table(TABLE, parameter)


def test_disagreement_is_that_of_the_two_pairs_toy_by_toy() -> None:
    estimates = _estimates()
    judged, others = (estimates.numbers(name, ("modern",)) for name in ("flow", "classifier"))
    opinions = second_opinions(estimates, judged, others)
    part = TABLE[(TABLE.kind == "toy") & (TABLE.recipe == "modern")]
    expected = toy_disagreement(part, 1, 2, parameter="mu")
    found = opinions.disagreement[0, 1, 0]
    chosen = expected[expected.z == 0.93].sort_values(["mu", "toy"])
    assert np.allclose(found, chosen.disagreement, rtol=1e-10)


def test_wrong_pairs_are_found_by_the_other_method_and_not_by_chance() -> None:
    estimates = _estimates()
    judged, others = (estimates.numbers(name, BOTH) for name in ("flow", "classifier"))
    opinions = second_opinions(estimates, judged, others)
    names = estimates.names.iloc[judged].reset_index(drop=True)
    is_bad = (names.recipe == "sluijter") & (names.seed == 4)
    assert opinions.wrong[is_bad].all()
    assert not opinions.wrong[~is_bad].any()
    band = roc_band(opinions, single_toys=False, seed=1, n_draws=20)
    assert band is not None
    assert band.curve.area > 0.85
    assert (band.n_wrong, band.n_judged) == (3, 21)
    assert (band.lower <= band.upper).all()
    single = roc_band(opinions, single_toys=True, seed=1, n_draws=20)
    assert single is not None
    assert 0.5 < single.curve.area <= band.curve.area + 0.1
    groups = wrong_after_agreement(opinions, n_groups=3)
    assert groups.wrong.is_monotonic_increasing
    assert np.isclose(groups.wrong.mean(), 1 / 7, atol=0.01)


def test_no_pair_judges_itself() -> None:
    estimates = _estimates()
    flows = estimates.numbers("flow", BOTH)
    opinions = second_opinions(estimates, flows, flows)
    assert np.isnan(opinions.disagreement[np.arange(7), np.arange(7)]).all()
    assert np.isclose(np.isfinite(opinions.disagreement).mean(), 1 - 1 / 7)
    assert roc_band(opinions, single_toys=False, seed=1, n_draws=10) is not None


def test_no_curve_without_wrong_pairs() -> None:
    estimates = _estimates()
    flows = estimates.numbers("flow", ("modern",))
    assert roc_band(second_opinions(estimates, flows, flows), single_toys=True, seed=1) is None


def test_fits_that_all_failed_leave_neither_curve_nor_groups() -> None:
    estimates = _estimates()
    judged, others = (estimates.numbers(name, BOTH) for name in ("flow", "classifier"))
    opinions = second_opinions(estimates, judged, others)
    failed = opinions._replace(disagreement=np.full_like(opinions.disagreement, np.nan))
    assert roc_band(failed, single_toys=True, seed=1) is None
    groups = wrong_after_agreement(failed)
    assert len(groups) == 0
    assert list(groups) == ["lowest", "highest", "wrong"]


def test_bad_input_is_named() -> None:
    rows = pd.concat([toy_rows("modern", "flow", 1, 0.0), toy_rows("modern", "flow", 2, 0.0, n_toys=5)])
    with pytest.raises(DataError, match="same toys"):
        PairEstimates.of_table(rows, "mu")
    with pytest.raises(ParameterError, match="judge"):
        second_opinions(_estimates(), np.empty(0, int), np.arange(2))
