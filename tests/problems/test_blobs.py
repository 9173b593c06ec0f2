import math

import pytest
import scipy.stats
import torch

from sbilib.errors import DataError, ParameterError
from sbilib.problems import BLOBS, GaussianBlobs, spawn_generators


def test_published_means():
    blobs = GaussianBlobs.neos()
    assert [blobs.mean(name).tolist() for name in BLOBS] == [[-1, 1], [2.5, 2], [-2.5, -1.5], [1, -1]]


@pytest.mark.parametrize("blob", BLOBS)
def test_events_and_densities_are_those_of_unit_normals(blob):
    # False-alarm rate 0.1% for each Kolmogorov-Smirnov test, at a fixed seed.
    blobs = GaussianBlobs.neos()
    events = getattr(blobs.sample(20_000, seed=5, dtype=torch.float64), blob)
    mean = blobs.mean(blob)
    for feature in range(2):
        assert scipy.stats.kstest(events[:, feature] - mean[feature], "norm").pvalue > 1e-3
    expected = scipy.stats.multivariate_normal(mean.numpy()).logpdf(events[:5].numpy())
    torch.testing.assert_close(blobs.log_prob(blob, events[:5]), torch.from_numpy(expected))


def test_every_blob_has_a_random_stream_of_its_own():
    # 10 000 pairs: a correlation beyond 0.04 has a chance of 6e-5 for each of 24 pairs of coordinates.
    blobs = GaussianBlobs.neos()
    noise = torch.cat(list(blobs.sample(10_000, seed=3, dtype=torch.float64)), dim=1)
    correlation = torch.corrcoef(noise.T) - torch.eye(8)
    assert correlation.abs().max() < 0.04


def test_a_seed_decides_the_events():
    blobs = GaussianBlobs.neos()
    first, again, other = (blobs.sample(4, seed=seed) for seed in (1, 1, 2))
    for one, two, three in zip(first, again, other, strict=True):
        assert torch.equal(one, two)
        assert not torch.equal(one, three)


def test_bad_input_is_refused():
    blobs = GaussianBlobs.neos()
    with pytest.raises(ParameterError, match="n must be an integer"):
        blobs.sample(0, seed=1)
    with pytest.raises(ParameterError, match="seed"):
        blobs.sample(3, seed=-1)
    with pytest.raises(ParameterError, match="'signal', 'background', 'up', 'down'"):
        blobs.mean("sideways")
    with pytest.raises(DataError, match="2 features"):
        blobs.log_prob("up", torch.zeros(3, 3))
    with pytest.raises(ParameterError, match="finite"):
        GaussianBlobs((math.nan, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0))
    with pytest.raises(ParameterError, match="two coordinates"):
        GaussianBlobs((0.0,), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0))  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="n must"):
        spawn_generators(1, 0)
