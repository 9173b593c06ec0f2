"""The numbers and claims in the theory pages, recalculated from their formulas."""

from __future__ import annotations

import re
from math import sqrt

import numpy as np
import pytest
import torch
from scipy.integrate import dblquad, quad
from scipy.stats import chi2, norm

from tests.book.conftest import ROOT


def text(page: str) -> str:
    return re.sub(r"\s+", " ", (ROOT / "book" / "theory" / f"{page}.md").read_text())


def test_limit_of_counting():
    widths = [2 * (1 + ratio) * sqrt(ratio / 1000) for ratio in (0.1, 0.2, 0.3)]
    page = text("signal-ratio")
    for width in [*widths, np.mean(widths)]:
        assert f"{width:.4f}" in page
    fraction = 0.2 / 1.2
    assert 1.2**2 * sqrt(fraction * (1 - fraction) / 1000) == pytest.approx(1.2 * sqrt(0.2 / 1000))


def test_levels_of_the_thresholds():
    page = text("intervals")
    for threshold in (1, 4, 9):
        assert f"| {threshold} | {100 * chi2.cdf(threshold, 1):.2f}% |" in page
    for threshold in (1.2, 0.8):
        assert f"{100 * chi2.cdf(threshold, 1):.1f}\\%" in page


def test_coverage_numbers():
    page = text("coverage")
    for size in (1, 9):
        assert f"{100 * (2 * norm.cdf(1 / sqrt(1 + 1 / size)) - 1):.1f}% for $k = {size}$" in page
    assert f"this is {100 * sqrt(0.683 * 0.317 / 2700):.1f}%" in page
    assert f"At $k = 9$ it is {100 * (2 * norm.cdf(1) - 1 - norm.pdf(1) / 9):.1f}%" in page
    assert round(0.683 * 0.317 / 0.0087**2, -2) == 2900


def test_bootstrap_coverage_averages_over_test_sets():
    def one(shift):
        return (norm.cdf(1 - shift) - norm.cdf(-1 - shift)) * norm.pdf(shift, scale=sqrt(1 / 9))

    assert quad(one, -4, 4)[0] == pytest.approx(2 * norm.cdf(1 / sqrt(1 + 1 / 9)) - 1, abs=1e-6)


def test_overlap_of_displaced_normals():
    grid = np.linspace(-10, 10, 200_001)
    for overlap, shift in ((0.94, 0.15), (0.5, 1.35), (0.82, 0.45)):
        common = np.minimum(norm.pdf(grid), norm.pdf(grid - shift)).sum() * (grid[1] - grid[0])
        assert common == pytest.approx(overlap, abs=0.006)
        assert common == pytest.approx(2 * norm.cdf(-shift / 2), abs=1e-4)


def test_single_precision_sigmoid_saturates_where_the_page_says():
    logit = torch.linspace(16, 18, 20_001)
    first = float(logit[torch.sigmoid(logit) == 1][0])
    assert first == pytest.approx(16.6, abs=0.1)
    assert "exceeds about 16.6" in text("likelihood-ratio-trick")


def test_unbalanced_training_lowers_the_estimate():
    """Two overlapping normals, infinite data: the score at the truth is negative for a third of the ratio."""
    fraction = 0.2

    def score(x, factor):
        ratio = factor * np.exp(2 * x)
        density = fraction * norm.pdf(x, 1) + (1 - fraction) * norm.pdf(x, -1)
        return (ratio - 1) / (fraction * ratio + 1 - fraction) * density

    assert quad(score, -9, 9, args=(1.0,))[0] == pytest.approx(0, abs=1e-7)
    assert quad(score, -9, 9, args=(1 / 3,))[0] < -0.1


def test_spline_derivative_is_the_derivative_of_the_spline():
    width, height, left, right = 0.7, 1.3, 0.4, 2.5
    slope = height / width

    def denominator(t):
        return slope + (right + left - 2 * slope) * t * (1 - t)

    def spline(t):
        return height * (slope * t**2 + left * t * (1 - t)) / denominator(t)

    position = np.linspace(0.01, 0.99, 99)
    numeric = (spline(position + 1e-6) - spline(position - 1e-6)) / (2e-6 * width)
    numerator = right * position**2 + 2 * slope * position * (1 - position) + left * (1 - position) ** 2
    np.testing.assert_allclose(numeric, slope**2 * numerator / denominator(position) ** 2, rtol=1e-7)


def test_log_ratio_of_the_gaussian_toys():
    """The exercise's log ratio normalizes: its exponential averages to one over the background."""
    radius, angle = 0.5, 0.9
    mean = radius * np.array([np.cos(angle), np.sin(angle)])

    def weighted(y, x):
        log_ratio = 2 * radius * (x * np.cos(angle) + y * np.sin(angle))
        return np.exp(log_ratio) * norm.pdf(x, -mean[0]) * norm.pdf(y, -mean[1])

    assert dblquad(weighted, -9, 9, -9, 9)[0] == pytest.approx(1, abs=1e-6)
