"""Template fits: bins, normalization, exact bin probabilities, empty bins."""

from __future__ import annotations

import math

import pytest
import torch

from sbilib.errors import DataError, ParameterError
from sbilib.models.histogram import HistogramPair, QuantileBins
from tests.studies.higgs_examples import SampledProblem


def _pair(size: int = 50_000, **options) -> HistogramPair:
    problem = SampledProblem(size=size)
    return HistogramPair.of_shifted(
        problem.all_events,
        nuisance_range=(0.8, 1.2),
        reference=1.0,
        **{"n_first": 10, "n_second": 10, **options},
    )


def test_bins_hold_equal_numbers_and_every_event_has_one() -> None:
    x = torch.randn(12_000, 2, generator=torch.Generator().manual_seed(1))
    bins = QuantileBins.of_events(x, n_first=12, n_second=10)
    assert bins.find(x).bincount(minlength=120).tolist() == [100] * 120
    far = torch.tensor([[-1e9, -1e9], [1e9, 1e9], [-1e9, 1e9]])
    assert bins.find(far).tolist() == [0, 119, 9]


def test_templates_sum_to_one_at_any_nuisance_value() -> None:
    templates = _pair().templates(torch.linspace(0.8, 1.2, 13))
    assert torch.allclose(templates.exp().sum(dim=1), torch.ones(2, 13).double(), atol=1e-12)


def test_templates_are_the_bin_probabilities_within_their_errors() -> None:
    # At z between nodes; the 200 deviations of templates of 50 000 events should have a mean square of one
    # (false alarm rate of these bounds about 1e-3), if those of the 4e6 events they are compared with and the
    # smoothing are small.
    pair, z, n = _pair(), 1.03, 50_000
    large = SampledProblem(size=4_000_000, seed=5)
    expected = (
        torch.stack(
            [
                pair.bins.find(large.all_events(name, z).events).bincount(minlength=100)
                for name in ("signal", "background")
            ]
        )
        / large.size
    )
    found = pair.templates(torch.tensor([z]))[:, :, 0].exp()
    pulls = (found - expected) / (expected / n).sqrt()
    assert 0.6 < float(pulls.square().mean()) < 1.35


def test_a_bin_without_training_events_has_half_an_event() -> None:
    def shifted(component: str, z: float) -> tuple[torch.Tensor, torch.Tensor]:
        line = torch.linspace(0, 1, 1000, dtype=torch.float64).reshape(-1, 1)
        offset = 10.0 if component == "signal" else 0.0
        return torch.cat((line + offset, line), dim=1), torch.ones(1000)

    pair = HistogramPair.of_shifted(
        shifted, nuisance_range=(0.9, 1.1), reference=1.0, n_first=2, n_second=5, n_nodes=3, degree=2
    )
    found = pair.log_components(torch.tensor([[0.05, 0.05]]), torch.tensor([1.0]))
    assert found.signal.item() == pytest.approx(math.log(0.5 / 1005.0))
    assert found.background.item() == pytest.approx(math.log(200.5 / 1005.0))


def test_weights_count() -> None:
    def shifted(component: str, z: float) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.rand(1000, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        return x, 1.0 + (x[:, 0] > 0.5)

    pair = HistogramPair.of_shifted(shifted, nuisance_range=(0.9, 1.1), reference=1.0, n_first=2, n_second=1)
    low, high = pair.templates(torch.tensor([1.0]))[0, :, 0].exp().tolist()
    assert high / low == pytest.approx(2.0, rel=0.1)


def test_bad_input_is_named() -> None:
    pair = _pair(size=5000)
    with pytest.raises(ParameterError, match="nuisance"):
        pair.log_components(torch.ones(2, 2), torch.tensor([1.3]))
    with pytest.raises(DataError, match="fewer than"):
        QuantileBins.of_events(torch.rand(50, 2), n_first=10, n_second=10)
    with pytest.raises(DataError, match="share one value"):
        QuantileBins.of_events(torch.ones(500, 2), n_first=2, n_second=2)
    with pytest.raises(ParameterError, match="pseudo_events"):
        _pair(size=5000, pseudo_events=0.0)
    with pytest.raises(ParameterError, match="degree"):
        _pair(size=5000, degree=9)
