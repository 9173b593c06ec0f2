r"""Further modes from the difference between generated templates and their training events.

With templates :math:`t`, training histograms :math:`h` of noise :math:`\sigma_i = \sqrt{t_i / N}` and
orthonormal columns :math:`Q` that span :math:`t_i P_k(x_i) / \sigma_i` for Legendre polynomials of the place
of a bin,

.. math:: q_k = \sum_i Q_{ik}\, \frac{h_i - t_i}{\sigma_i}, \qquad
          m_{ki} = \sigma_i\, Q_{ik} \sqrt{1 + q_k^2} .

Each :math:`q_k` is standard normal for a perfect model, so the root holds the noise of the training events
and what is beyond it.  Whatever is not smooth is left out: it cannot be told from that noise.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sbilib.errors import DataError, check_count
from sbilib.studies.amplified_templates import BinnedSample
from sbilib.studies.model_error import ShapeModes

__all__ = ["closure_shifts", "joined_modes"]


def joined_modes(modes: ShapeModes, shifts: ArrayLike) -> ShapeModes:
    """Modes with further shifts, for instance those of :func:`closure_shifts`.

    Args:
        modes: of shape ``(*batch, n_modes, n_bins)``.
        shifts: by one standard deviation each, ``(*batch, n_shifts, n_bins)``, in the same unit.

    Raises:
        DataError: if the shapes do not fit.

    Example:
        >>> modes = ShapeModes(np.ones((1, 2)), np.zeros(2), 8, np.array(0.9))
        >>> joined_modes(modes, [[0.0, 3.0]]).shifts.tolist()
        [[1.0, 1.0], [0.0, 3.0]]
    """
    further = np.asarray(shifts, dtype=np.float64)
    if further.ndim < 2 or (*further.shape[:-2], further.shape[-1]) != modes.residual.shape:
        raise DataError(
            f"shifts of shape {further.shape} do not fit modes of {modes.shifts.shape}; pass "
            "(*batch, n_shifts, n_bins)"
        )
    joined = np.concatenate([modes.shifts, further], axis=-2)
    return ShapeModes(joined, modes.residual, modes.n_models, modes.explained)


def closure_shifts(
    generated: BinnedSample, training: BinnedSample, *, degree: int = 2
) -> NDArray[np.float64]:
    """Smooth shifts that hold the difference of generated templates from their training events.

    Args:
        generated: templates, ``(*batch, n_bins)``.
        training: histograms of the training events, likewise, without weights.
        degree: of the polynomials; 0 is the normalization alone.

    Returns:
        ``(*batch, degree + 1, n_bins)``, in parts of all events.

    Raises:
        DataError: if the shapes differ, or there are not more bins than polynomials.

    Example:
        >>> from sbilib.studies.amplified_templates import Binning
        >>> sample = BinnedSample(Binning("x", (0, 1, 2)), [50.0, 50.0], [50.0, 50.0], 1000.0)
        >>> closure_shifts(sample, sample, degree=0).round(4).tolist()
        [[-0.005, -0.005]]
    """
    template, seen = generated.fractions, training.fractions
    n_bins = template.shape[-1]
    if template.shape != seen.shape or check_count("degree", degree) + 1 >= n_bins:
        raise DataError(
            f"closure needs templates and training histograms alike and more than {degree + 1} bins, got "
            f"{template.shape} and {seen.shape}; bin them alike, or lower the degree"
        )
    noise = np.sqrt(template / training.totals[..., None])
    place = np.linspace(-1, 1, n_bins)
    polynomials = np.polynomial.legendre.legvander(place, degree)
    columns = np.linalg.qr((template / noise)[..., None] * polynomials)[0]
    pulls = (columns * ((seen - template) / noise)[..., None]).sum(-2)
    shifts: NDArray[np.float64] = np.swapaxes(
        noise[..., None] * columns * np.sqrt(1 + pulls**2)[..., None, :], -1, -2
    )
    return shifts
