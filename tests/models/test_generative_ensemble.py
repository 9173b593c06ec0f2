"""The mean of several densities: its value, its events, its file."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sbilib.errors import DataError, ParameterError
from sbilib.models import (
    AffineFlowConfig,
    GenerativeEnsemble,
    MixtureAutoregressive,
    MixtureConfig,
    QuantileToNormal,
    RealNVP,
    TransformedDensity,
    load_model,
    sample_to_parquet,
    save_model,
)

NAMES = ("pt", "mass")


def events(center: float, n: int = 3000) -> Tensor:
    generator = torch.Generator().manual_seed(int(center))
    return center + torch.randn(n, 2, generator=generator)


def member(center: float, kind: str = "mixture") -> TransformedDensity:
    """Events around a center of their own: with new weights a density is near that of its map."""
    transform = QuantileToNormal.fit(events(center), names=NAMES)
    density = (
        MixtureAutoregressive(MixtureConfig(features=2, hidden=8, n_blocks=1, n_components=4))
        if kind == "mixture"
        else RealNVP(AffineFlowConfig(features=2, n_transforms=2, hidden=8))
    )
    return TransformedDensity(transform, density)


@pytest.fixture
def ensemble() -> GenerativeEnsemble:
    return GenerativeEnsemble([member(0.0), member(20.0, "flow"), member(40.0)])


@torch.no_grad()
def test_density_is_the_mean_of_the_densities(ensemble: GenerativeEnsemble) -> None:
    x = torch.cat([events(center, 50) for center in (0.0, 20.0, 40.0)])
    expected = torch.stack([each.log_prob(x) for each in ensemble.members]).exp().mean(dim=0)
    assert torch.allclose(ensemble.log_prob(x).exp(), expected, rtol=1e-5)
    alone = GenerativeEnsemble([member(0.0)])
    assert torch.allclose(alone.log_prob(x[:50]), alone.members[0].log_prob(x[:50]))


def test_events_come_from_all_members_in_equal_shares(ensemble: GenerativeEnsemble) -> None:
    """9000 events in thirds scatter by 45; the chance of one part beyond 4.5 of that is 2 in 10^5."""
    x = ensemble.sample(9000, torch.Generator().manual_seed(1))
    counts = np.histogram(x[:, 0].numpy(), [-10, 10, 30, 50])[0]
    assert np.abs(counts - 3000).max() < 4.5 * math.sqrt(9000 * 2 / 9)
    assert bool((x[:, 0] - x[:, 1]).abs().max() < 15)  # both features of an event are of one member


def test_events_do_not_depend_on_how_they_are_asked_for(ensemble: GenerativeEnsemble, tmp_path: Path) -> None:
    first, again = (ensemble.sample(500, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    written = sample_to_parquet(ensemble, tmp_path / "x.parquet", 20_000, seed=1)
    assert written.n_events == 20_000


def test_an_ensemble_comes_back_from_its_file(ensemble: GenerativeEnsemble, tmp_path: Path) -> None:
    save_model(tmp_path / "ensemble.safetensors", ensemble)
    loaded = load_model(tmp_path / "ensemble.safetensors").model
    x = events(20.0, 30)
    with torch.no_grad():
        assert torch.equal(loaded.log_prob(x), ensemble.log_prob(x))
    assert loaded.names == NAMES


def test_members_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ParameterError, match="at least one"):
        GenerativeEnsemble([])
    other = QuantileToNormal.fit(events(0.0), names=("mass", "pt"))
    swapped = TransformedDensity(other, MixtureAutoregressive(MixtureConfig(features=2, hidden=8)))
    with pytest.raises(ParameterError, match="same features"):
        GenerativeEnsemble([member(0.0), swapped])
    with pytest.raises(DataError, match="shape"):
        GenerativeEnsemble([member(0.0)]).log_prob(torch.zeros(3, 5))
