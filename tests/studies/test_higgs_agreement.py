"""Disagreement of two methods as a warning, on tables made by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sbilib.errors import DataError, ParameterError
from sbilib.studies.higgs_agreement import model_disagreement, toy_disagreement, warning_roc


def _table(shift: float, n: int = 200) -> pd.DataFrame:
    """Toys of a right flow and of a classifier whose best fits are shifted, in units of sigma."""
    rng, sigma = np.random.default_rng(1), 0.05
    hat = 0.2 + sigma * rng.normal(size=n)
    parts = []
    for method, moved in (("flow", hat), ("classifier", hat + shift * sigma)):
        columns = {"mu_hat": moved, "mu_lower": moved - sigma, "mu_upper": moved + sigma}
        columns |= {"z_hat": 1.0, "z_lower": 0.99, "z_upper": 1.01, "toy": np.arange(n)}
        parts.append(pd.DataFrame(columns).assign(kind="toy", method=method, seed=1, mu=0.2, z=1.0))
    return pd.concat(parts, ignore_index=True)


def test_a_shift_is_seen_in_units_of_sigma() -> None:
    rows = toy_disagreement(_table(-1.5), 1, 1, parameter="mu")
    assert np.allclose(rows["disagreement"], 1.5)
    assert np.allclose(rows["difference"], 1.5)
    assert (rows["wrong"] == ~(rows["flow_holds"] & rows["classifier_holds"])).all()


def test_models_far_apart_are_wrong_and_equal_ones_are_not() -> None:
    assert model_disagreement(_table(1.5), parameter="mu")["wrong"].tolist() == [True]
    same = model_disagreement(_table(0.0), parameter="mu", lowest_coverage=0.55)
    assert same["wrong"].tolist() == [False]
    assert same["flow_coverage"].tolist() == same["classifier_coverage"].tolist()
    assert model_disagreement(_table(1.5), parameter="z")["disagreement"].tolist() == [0.0]


def test_area_is_the_chance_of_the_higher_score() -> None:
    rng = np.random.default_rng(2)
    score, wrong = rng.integers(0, 6, size=300).astype(float), rng.random(300) < 0.3
    roc = warning_roc(pd.Series(score), pd.Series(wrong))
    pairs = score[wrong][:, None] - score[~wrong][None]
    expected = float((pairs > 0).mean() + 0.5 * (pairs == 0).mean())
    assert roc.area == pytest.approx(expected)
    assert roc.false_alarms[0] == roc.detected[0] == 0
    assert roc.false_alarms[-1] == roc.detected[-1] == 1


def test_error_of_the_area_is_its_scatter() -> None:
    # Area 0.5 by construction: the scatter of 300 repeats is known to 4%.
    rng = np.random.default_rng(3)
    wrong = pd.Series(np.arange(80) < 30)
    rocs = [warning_roc(pd.Series(rng.normal(size=80)), wrong) for _ in range(300)]
    scatter = np.std([roc.area for roc in rocs])
    assert np.mean([roc.error for roc in rocs]) == pytest.approx(scatter, rel=0.15)


def test_bad_input_is_named() -> None:
    with pytest.raises(DataError, match="no toys of the classifier"):
        toy_disagreement(_table(0.0), 1, 2, parameter="mu")
    with pytest.raises(ParameterError, match="parameter"):
        toy_disagreement(_table(0.0), 1, 1, parameter="x")
    with pytest.raises(DataError, match="classifier"):
        model_disagreement(_table(0.0).query("method == 'flow'"), parameter="mu")
    with pytest.raises(ParameterError, match="wrong and right"):
        warning_roc(pd.Series([1.0, 2.0]), pd.Series([True, True]))
