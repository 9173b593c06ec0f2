"""The metrics of a model whose fault is known."""

import math

import pytest
import torch

from sbilib.components import LogComponents
from sbilib.errors import ParameterError
from sbilib.likelihood import ScanGrid
from sbilib.problems import GaussianToy, published_test_sets
from sbilib.studies import (
    METRICS,
    effective_direction,
    evaluate_densities,
    sluijter_table_4_2,
    summarize_metrics,
)

TOY = GaussianToy.large_distance()
GRID = ScanGrid.uniform(nuisance_range=TOY.scan_range, n_ratios=60, n_nuisances=81)


class Turned:
    """The exact densities at an angle that is off by a constant."""

    def __init__(self, offset):
        self._offset = offset

    def log_components(self, x, nuisance):
        return TOY.log_components(x, nuisance + self._offset)


class WithConstants:
    """The exact densities plus a constant of each event that signal and background share."""

    def log_components(self, x, nuisance):
        constant = 3 * x[:, :1].double() ** 2
        return LogComponents(*(part + constant for part in TOY.log_components(x, nuisance)))


@pytest.fixture(scope="module")
def table():
    # One standard deviation of z is 1 / (r sqrt(n)) = 0.0158 for n = 1000 events.
    densities = {"exact": TOY, "turned": Turned(0.0158), "ratio": WithConstants()}
    test_sets = published_test_sets(TOY, torch.Generator().manual_seed(1))[::2]
    return evaluate_densities(densities, test_sets, GRID, exact="exact", n_bootstrap=25, seed=2).table


def test_every_method_meets_every_test_set(table):
    assert len(table) == 15
    assert set(METRICS) <= set(table.columns)


def test_the_exact_likelihood_overlaps_with_itself(table):
    exact = table[table.method == "exact"]
    assert exact["total overlap"].to_numpy() == pytest.approx(1.0)


def test_a_constant_shared_by_both_components_changes_nothing(table):
    exact, ratio = (table[table.method == name].reset_index() for name in ("exact", "ratio"))
    for metric in METRICS:
        assert ratio[metric].to_numpy() == pytest.approx(exact[metric].to_numpy(), abs=1e-6), metric


def test_a_shift_by_one_standard_deviation_gives_the_known_overlap_and_coverage(table):
    turned = summarize_metrics(table).loc["turned"]
    # Two unit Gaussians one apart overlap by 2 Phi(-1/2) = 0.617.
    assert turned["z overlap", "mean"] == pytest.approx(math.erfc(0.5 / math.sqrt(2)), abs=0.02)
    # The shift leaves the width alone: 2 / (r sqrt(n)).
    assert turned["z mean width", "mean"] == pytest.approx(0.0316, rel=0.05)
    # Phi(0) - Phi(-2) = 0.477, less a little for the bootstrap.
    assert 0.3 < turned["z coverage", "mean"] < 0.55
    assert turned["mu overlap", "mean"] > 0.97


def test_errors_are_standard_errors_over_test_sets(table):
    exact = table[table.method == "exact"]["mu coverage"]
    summary = summarize_metrics(table).loc["exact"]
    assert summary["mu coverage", "error"] == pytest.approx(exact.std(ddof=1) / 5**0.5)


def test_an_unknown_exact_method_is_refused():
    test_sets = published_test_sets(TOY, torch.Generator().manual_seed(1), n_events=20)
    with pytest.raises(ParameterError, match="exact must be one of 'a', got 'b'"):
        evaluate_densities({"a": TOY}, test_sets, GRID, exact="b", seed=1)


def test_no_test_sets_are_refused():
    with pytest.raises(ParameterError, match="test sets"):
        evaluate_densities({"exact": TOY}, [], GRID, exact="exact", seed=1)


def test_published_values_have_every_metric_and_method():
    for case in ("large", "small"):
        table = sluijter_table_4_2(case)
        assert list(table.columns) == list(METRICS)
        assert set(table.index) == {"flow", "classifier"}


def test_the_effective_direction_of_a_turned_model_is_turned():
    angles = torch.tensor([0.3, 1.0], dtype=torch.float64)

    class TurnedBeyondReference:
        def log_components(self, x, nuisance):
            offset = torch.where(nuisance == TOY.reference_nuisance, 0.0, 0.1)
            return TOY.log_components(x, nuisance + offset)

    seen = effective_direction(
        TurnedBeyondReference(), TOY, angles, generator=torch.Generator().manual_seed(1), n_events=50
    )
    torch.testing.assert_close(seen.angle, angles + 0.1)
    torch.testing.assert_close(seen.radius, torch.full((2,), 2.0, dtype=torch.float64))
