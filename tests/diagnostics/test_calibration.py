import math

import pytest
import torch

from sbilib.diagnostics import ratio_calibration
from sbilib.errors import DataError


def test_an_exact_ratio_is_perfectly_calibrated():
    exact = torch.randn(5000, 3, generator=torch.Generator().manual_seed(1))
    result = ratio_calibration(exact, exact)
    assert result.rms == 0
    assert bool((result.difference == 0).all())
    assert bool((result.exact.diff() > 0).all())


def test_a_known_distortion_is_found_bin_by_bin():
    generator = torch.Generator().manual_seed(2)
    exact = torch.randn(200_000, generator=generator, dtype=torch.float64)
    noise = 0.1 * torch.randn(200_000, generator=generator, dtype=torch.float64)
    result = ratio_calibration(1.2 * exact + 0.3 + noise, exact, n_bins=10)
    # Standard error of a median of 20000 events: 0.1 sqrt(pi / 2 / 20000) = 0.0009.
    inner = slice(1, -1)  # in the outer bins the slope moves the median away from the mean
    torch.testing.assert_close(result.difference[inner], 0.2 * result.exact[inner] + 0.3, atol=0.006, rtol=0)
    spread = (result.high - result.low)[inner] / 2
    torch.testing.assert_close(spread, torch.full_like(spread, 0.1), atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("learned", "exact", "message"),
    [
        (torch.zeros(30), torch.zeros(31), r"\(30,\) and \(31,\)"),
        (torch.zeros(5), torch.zeros(5), "20 bins need at least as many events, got 5"),
        (torch.full((30,), math.nan), torch.zeros(30), "finite"),
    ],
)
def test_bad_ratios_are_refused(learned, exact, message):
    with pytest.raises(DataError, match=message):
        ratio_calibration(learned, exact)
