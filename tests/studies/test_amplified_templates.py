"""Histograms of selected events count what they should, and bad samples are named."""

from __future__ import annotations

import numpy as np
import pytest

from sbilib.errors import DataError, ParameterError
from sbilib.studies.amplified_templates import (
    BinnedSample,
    Binning,
    bin_events,
    bin_prefixes,
    check_filled,
    merged_binning,
)

BINNING = Binning("score", (0.5, 0.6, 0.8, 1.0))


def events(n: int, seed: int = 1):
    random = np.random.default_rng(seed)
    return random.uniform(size=n), random.uniform(size=n) > 0.3, random.uniform(0.5, 2, size=n)


def test_counts_are_those_of_numpy_with_the_last_edge_included():
    x, keep, w = events(2000)
    x[0], keep[0] = 1.0, True
    sample = bin_events(x, BINNING, selected=keep, weights=w)
    expected, _ = np.histogram(x[keep], BINNING.edges, weights=w[keep])
    squares, _ = np.histogram(x[keep], BINNING.edges, weights=w[keep] ** 2)
    assert sample.counts == pytest.approx(expected)
    assert sample.errors == pytest.approx(np.sqrt(squares) / w.sum())
    assert sample.efficiency == pytest.approx(expected.sum() / w.sum())


def test_prefixes_are_the_histograms_of_the_first_events():
    x, keep, w = events(3000)
    sizes = [100, 101, 3000]
    batch = bin_prefixes(x, BINNING, sizes, selected=keep, weights=w)
    for place, n in enumerate(sizes):
        single = bin_events(x[:n], BINNING, selected=keep[:n], weights=w[:n])
        assert batch.fractions[place] == pytest.approx(single.fractions)
        assert batch.errors[place] == pytest.approx(single.errors)


def test_published_bins():
    score, mass = Binning.score(), Binning.mass()
    assert (score.n_bins, score.edges[0], score.edges[-1]) == (25, 0.55, 1.0)
    assert (mass.n_bins, mass.edges[0], mass.edges[-1]) == (25, 0.0, 3.0)


def test_an_empty_bin_is_named_and_the_remedy_works():
    sample = bin_events([0.55, 0.9, 0.95], BINNING, name="generated")
    with pytest.raises(DataError, match=r"generated: no event in bin 1 of 3 .*merged_binning and rebinned"):
        check_filled(sample)
    better = check_filled(sample.rebinned(merged_binning([sample], least=1)))
    assert better.counts.tolist() == [1.0, 2.0]


def test_merged_bins_have_enough_events_in_every_sample():
    x, keep, w = events(400)
    fine = Binning("score", tuple(np.linspace(0, 1, 41)))
    samples = [
        bin_prefixes(x, fine, [100, 400], selected=keep),
        bin_events(x**2, fine, weights=w),
    ]
    merged = merged_binning(samples, least=8)
    assert 5 < merged.n_bins < 40
    for sample in samples:
        wide = sample.rebinned(merged)
        assert (wide.counts**2 / wide.squares >= 8).all()
        assert wide.efficiency == pytest.approx(sample.efficiency)
    heavy = bin_events(x, fine, weights=w**8)
    few = heavy.rebinned(merged_binning([heavy], least=8))
    assert (few.counts**2 / few.squares >= 8).all()
    with pytest.raises(DataError, match="fewer than 1000 effective events"):
        merged_binning(samples, least=1000)


def test_a_cut_that_leaves_nothing_is_named_with_its_remedy():
    x, _, _ = events(50)
    with pytest.raises(DataError, match=r"generated: none of 50 events passes .* lower the cut"):
        bin_events(x, BINNING, selected=x > 2, name="generated")
    with pytest.raises(DataError, match=r"none of 1 events"):
        bin_prefixes([0.1, 0.9], BINNING, [1, 2])


def test_bad_events_are_refused():
    with pytest.raises(DataError, match="NaN"):
        bin_events([0.7, np.nan], BINNING)
    assert bin_events([0.7, np.nan], BINNING, selected=[True, False]).counts.sum() == 1
    with pytest.raises(DataError, match="one bool"):
        bin_events([0.7, 0.8], BINNING, selected=[1, 0])
    with pytest.raises(DataError, match="has 2 events, 3 were asked for; generate more"):
        bin_prefixes([0.7, 0.8], BINNING, [1, 3])
    with pytest.raises(ParameterError, match="increasing"):
        bin_prefixes([0.7, 0.8], BINNING, [2, 1])
    with pytest.raises(DataError, match="shape"):
        BinnedSample(BINNING, [1.0], [1.0], 3.0)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="increasing"):
        Binning("x", (1.0, 1.0))
    with pytest.raises(ParameterError, match="ends included"):
        bin_events([0.7], BINNING).rebinned(Binning("score", (0.5, 0.8)))
