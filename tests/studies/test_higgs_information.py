"""Information from scores: closed forms for normal scores, and the identity of mean score and rate."""

from __future__ import annotations

import math

import pytest
import torch

from sbilib.errors import DataError, ParameterError
from sbilib.likelihood.extended import ExpectedYields
from sbilib.studies.higgs_information import (
    EventScores,
    event_scores,
    explained_information,
    greedy_features,
    widths_of,
)
from tests.problems.scaled import ScaledProblem

NODES = torch.linspace(0.85, 1.15, 13, dtype=torch.float64)
YIELDS = ExpectedYields(400.0, NODES, NODES**2, NODES**3)


def _linear(n: int = 40_000) -> tuple[torch.Tensor, EventScores]:
    """Four independent standard normal coordinates; scores are sums of the first two, and the third."""
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scores = torch.stack((x[:, 0] + 2 * x[:, 1], x[:, 2]), dim=1)
    return x, EventScores(scores, torch.full((n,), 100 / n, dtype=torch.float64))


def test_the_mean_score_is_the_gradient_of_the_log_rate():
    problem, generator = ScaledProblem(), torch.Generator().manual_seed(3)
    one = torch.ones(60_000, dtype=torch.float64)
    signal, background = (problem.sample(name, one, generator) for name in ("signal", "background"))
    found = event_scores(problem, signal, background, YIELDS, signal_ratio=0.25)
    assert float(found.weights.sum()) == pytest.approx(500.0)
    # nu = 400 (mu z^2 + z^3).
    expected = torch.tensor([1 / 1.25, (0.25 * 2 + 3) / 1.25], dtype=torch.float64)
    # Four standard deviations: a false alarm in ten thousand.
    error = (found.scores.var(dim=0) / 60_000).sqrt()
    assert bool(((found.mean() - expected).abs() < 4 * error).all())
    total = found.scores.T @ (found.weights[:, None] * found.scores)
    assert torch.allclose(found.shape_information() + found.rate_information(), total)


def test_a_lost_coordinate_takes_its_information_along():
    x, scores = _linear()
    # Variances of sample covariances of n events are about 2 / n.
    tolerance = 100 * 5 * 4 * math.sqrt(2 / len(x))
    for kept, expected in (((0, 1, 2), (5.0, 1.0)), ((0, 2), (1.0, 1.0)), ((1, 2, 3), (4.0, 1.0))):
        found = explained_information(x[:, list(kept)].clone(), scores, degree=2)
        assert found.diagonal().tolist() == pytest.approx([100 * each for each in expected], abs=tolerance)
    full = explained_information(x[:, :3], scores, degree=1)
    assert torch.allclose(full, scores.shape_information(), atol=1.0)


def test_greedy_search_takes_the_best_first():
    x, scores = _linear(4000)
    names = ["small", "large", "scale", "nothing"]
    path = greedy_features(x, names, scores, start=["scale"], candidates=names, n_features=3)
    assert [name for name, _ in path] == ["large", "small"]
    assert path[1][1].mu < path[0][1].mu
    with pytest.raises(ParameterError, match="unknown"):
        greedy_features(x, names, scores, start=["no"], candidates=names, n_features=2)


def test_profiling_widens_by_the_correlation():
    rho = 0.6
    widths = widths_of(torch.tensor([[1.0, rho], [rho, 1.0]], dtype=torch.float64))
    assert widths.mu / widths.mu_fixed == pytest.approx(1 / math.sqrt(1 - rho**2))
    with pytest.raises(DataError, match="singular"):
        widths_of(torch.ones(2, 2))


def test_bad_input_is_named():
    x, scores = _linear(100)
    with pytest.raises(DataError, match="coordinates"):
        explained_information(x[1:], scores)
    with pytest.raises(ParameterError, match="signal_ratio"):
        event_scores(ScaledProblem(), x[:, :2], x[:, :2], YIELDS, signal_ratio=0.0)
