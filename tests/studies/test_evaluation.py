"""The fast evaluation of one pair: the dense grid's numbers, and those of a model whose fault is known."""

import math

import numpy as np
import pytest
import torch

from sbilib.errors import ParameterError
from sbilib.likelihood import ScanGrid
from sbilib.models import ClassifierConfig, ClassifierPair
from sbilib.problems import GaussianToy, published_test_sets
from sbilib.studies import METRICS, evaluate_densities, evaluate_pair

LARGE, SMALL = GaussianToy.large_distance(), GaussianToy.small_distance()


class Turned:
    """The exact densities at an angle that is off by a constant."""

    def __init__(self, toy, offset):
        self._toy, self._offset = toy, offset

    def log_components(self, x, nuisance):
        return self._toy.log_components(x, nuisance + self._offset)


def some_test_sets(toy, n_events=2000):
    sets = published_test_sets(toy, torch.Generator().manual_seed(1), n_events=n_events)
    return [sets[k] for k in (0, 4)]


@pytest.mark.parametrize("toy", [LARGE, SMALL], ids=["large", "small"])
def test_all_metrics_equal_those_of_the_dense_grid(toy):
    test_sets, grid = some_test_sets(toy, 400), ScanGrid.uniform(nuisance_range=toy.scan_range)
    turned = Turned(toy, 0.02)
    dense = evaluate_densities(
        {"exact": toy, "turned": turned}, test_sets, grid, exact="exact", n_bootstrap=6, set_size=400, seed=3
    ).table
    for name, densities in (("exact", toy), ("turned", turned)):
        want = dense[dense.method == name].drop(columns="method").reset_index(drop=True)
        got = evaluate_pair(densities, test_sets, exact=toy, n_bootstrap=6, set_size=400, seed=3)
        assert set(got.columns) == set(want.columns)
        for column in want.columns:
            # A coverage is a count of six; widths and overlaps are numbers.
            tolerance = 1e-9 if "coverage" in column or "open" in column else 1e-3
            np.testing.assert_allclose(got[column], want[column], atol=tolerance, rtol=0, err_msg=column)


def test_a_shift_by_one_standard_deviation_gives_the_known_overlap():
    # One standard deviation of z is 1 / (r sqrt(n)) = 0.0158 for n = 1000 events.
    table = evaluate_pair(
        Turned(LARGE, 0.0158), some_test_sets(LARGE, 9000), exact=LARGE, n_bootstrap=20, seed=2
    )
    # Two unit Gaussians one apart overlap by 2 Phi(-1/2) = 0.617.
    assert table["z overlap"].mean() == pytest.approx(math.erfc(0.5 / math.sqrt(2)), abs=0.02)
    assert table["z mean width"].mean() == pytest.approx(0.0316, rel=0.05)
    assert table["mu overlap"].min() > 0.97


def test_the_exact_densities_alone_have_no_overlap_and_all_the_rest():
    table = evaluate_pair(LARGE, some_test_sets(LARGE), exact=None, n_bootstrap=5, seed=1)
    assert set(METRICS[3:]) <= set(table.columns)
    assert not set(METRICS[:3]) & set(table.columns)


def test_without_overlaps_the_exact_densities_are_not_asked():
    class Asleep:
        scan_range = LARGE.scan_range

        def log_components(self, x, nuisance):
            raise AssertionError

    test_sets = some_test_sets(LARGE)
    without = evaluate_pair(LARGE, test_sets, exact=Asleep(), n_bootstrap=5, seed=1, overlaps=False)
    full = evaluate_pair(LARGE, test_sets, exact=LARGE, n_bootstrap=5, seed=1)
    for column in without.columns:
        assert without[column].tolist() == full[column].tolist()


def test_the_same_seed_gives_the_same_table():
    one, two = (evaluate_pair(LARGE, some_test_sets(LARGE), exact=LARGE, n_bootstrap=5, seed=1) for _ in "ab")
    assert one.equals(two)


def test_a_network_that_knows_nothing_is_evaluated_all_the_same():
    pair = ClassifierPair.from_config(ClassifierConfig.sluijter(), seed=1)
    table = evaluate_pair(pair, some_test_sets(SMALL), exact=SMALL, n_bootstrap=5, seed=1)
    assert bool(table["total overlap"].between(0, 1).all())
    assert bool((table["mu open"] + table["z open"] > 0).all())


def test_bad_arguments_are_refused():
    with pytest.raises(ParameterError, match="test sets"):
        evaluate_pair(LARGE, [], exact=None, seed=1)
    with pytest.raises(ParameterError, match="scan_range"):
        evaluate_pair(Turned(LARGE, 0.1), some_test_sets(LARGE), exact=None, seed=1)
    with pytest.raises(ParameterError, match="nuisance values"):
        evaluate_pair(LARGE, some_test_sets(LARGE), exact=None, seed=1, n_nodes=2)
