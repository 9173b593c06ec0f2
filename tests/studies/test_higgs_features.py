"""The plan of the page on features: what is asked for, and how its table is summarized."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sbilib.errors import ParameterError
from sbilib.problems.higgs import PUBLISHED_FEATURES
from sbilib.simulation.schema import FEATURES
from sbilib.studies.higgs_features import (
    CANDIDATES,
    FEATURE_SETS,
    SIX_FEATURES,
    FeaturePlan,
    precision_table,
    unit_studies,
)

POINTS = [(mu, z) for mu in (0.1, 0.2, 0.3) for z in (0.93, 1.0, 1.07)]


def test_sets_are_nested_and_flows_can_learn_the_six():
    assert set(PUBLISHED_FEATURES) < set(SIX_FEATURES) < set(FEATURES)
    assert set(SIX_FEATURES) <= {*PUBLISHED_FEATURES, *CANDIDATES}
    assert {number: len(names) for number, names in FEATURE_SETS.items()} == {2: 2, 6: 6, 28: 28}


def test_units_name_every_training_and_the_information_comes_last():
    plan = FeaturePlan()
    assert len(plan.units) == 11
    assert plan.units[-1] == "information"
    assert "information" not in FeaturePlan(classifier_sets=(2, 6)).units
    assert "information" not in FeaturePlan(thresholds=("published",)).units


def test_units_decide_no_results_of_others():
    # More sets may be asked for later without making those that are there anew.
    few = unit_studies({"classifier_sets": [2], "flow_sets": [2], "seed": 1, "unknown": 3})[""]
    assert few.facts == FeaturePlan().study().facts
    assert few.facts != FeaturePlan(n_toys=7).study().facts


def test_bad_plans_are_named():
    for bad, message in (
        ({"flow_sets": (28,)}, "absent jets"),
        ({"classifier_sets": (3,)}, "sets have"),
        ({"thresholds": ("none",)}, "threshold"),
        ({"n_tests": 6}, "five test splits"),
        ({"n_pairs": 0}, "n_pairs"),
    ):
        with pytest.raises(ParameterError, match=message):
            FeaturePlan(**bad)


def toy_rows() -> pd.DataFrame:
    """Rows of an ensemble and two pairs at nine test points."""
    rows = []
    for likelihood, factor in (("shape", 1.0), ("extended", 0.5)):
        for member, width in (("ensemble", 0.1), ("0", 0.08), ("1", 0.14)):
            for number, (mu, z) in enumerate(POINTS):
                rows.append(
                    {
                        "kind": "toy", "threshold": "realistic", "n_features": 2.0, "method": "flow",
                        "likelihood": likelihood, "scale": "profiled", "parameter": "mu", "member": member,
                        "mu": mu, "z": z, "width": factor * width, "width_error": 0.003,
                        "coverage": 0.6 + 0.01 * number, "error": 0.04, "reservoir_error": 0.03,
                        "open": 0.01 * number, "pull": (-1.0) ** number,
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


def test_precision_is_the_mean_of_test_points_with_independent_errors():
    found = precision_table(toy_rows()).set_index("likelihood")
    assert len(found) == 2
    shape = found.loc["shape"]
    assert shape["width"] == pytest.approx(0.1)
    assert shape["width_error"] == pytest.approx(0.001)
    assert shape["coverage"] == pytest.approx(0.64)
    assert shape["coverage_error"] == pytest.approx(0.05 / 3)
    assert (shape["width_low"], shape["width_high"]) == (pytest.approx(0.08), pytest.approx(0.14))
    assert shape["pull"] == pytest.approx(1.0)
    assert found.loc["extended", "width"] == pytest.approx(0.05)
    assert np.issubdtype(precision_table(toy_rows())["n_features"].dtype, np.integer)
