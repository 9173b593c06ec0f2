r"""Templates of a generative model that are anchored to its training events in a few smooth shapes.

A network that is too small, or stopped too soon, is wrong in the same way in each bootstrapped training, so
their spread does not show it.  The training events do.  With templates :math:`t` (parts of all events),
training histograms :math:`h` of ``N`` events, :math:`\sigma_i = \sqrt{t_i / N}` and orthonormal columns
:math:`Q` that span :math:`t_i P_k(x_i) / \sigma_i`, for Legendre polynomials of the place of a bin, the
anchored template is

.. math:: T_i = t_i + \sigma_i \sum_k Q_{ik}\, q_k, \qquad q_k = \sum_i Q_{ik}\, \frac{h_i - t_i}{\sigma_i},

so that :math:`\sum_i P_k(x_i) (h_i - T_i) = 0`: normalization, slope and curvature over the bins are those of
the training events.  In these shapes the error of :math:`T` is the noise of the training events, whatever the
model does: :math:`m_{ki} = \sigma_i Q_{ik}`, for :math:`k = 0` times :math:`\sqrt{1 - \varepsilon}` with the
selected part :math:`\varepsilon = \sum_i t_i`, because the number of all events is fixed.  If :math:`t` were
the truth each :math:`q_k` would be normal with these variances; a model that follows its events has smaller
ones.  In all other shapes the error is that of the model, so of the modes of bootstrapped trainings only what
is orthogonal to the anchored shapes is kept.

Left out: the correlation of the two parts, and the noise of the generated events in the anchored shapes,
which is taken off the template but not off its statistical errors; it is small where many more events are
generated than trained with.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sbilib.errors import DataError, check_count
from sbilib.studies.amplified_templates import BinnedSample
from sbilib.studies.model_error import ShapeModes

__all__ = ["AnchoredTemplate", "anchored_template"]

_LEAST = 0.1
"""Part of the generated template that is left in a bin at least."""


class AnchoredTemplate(NamedTuple):
    """A corrected template, and its error."""

    sample: BinnedSample
    """The template."""
    modes: ShapeModes
    """First the noise of the training events in each shape, then what is left of the modes of the model."""
    pulls: NDArray[np.float64]
    """The differences q, ``(*batch, degree + 1)``, in standard deviations of a template that is the truth."""


def anchored_template(
    generated: BinnedSample, training: BinnedSample, modes: ShapeModes, *, degree: int = 2
) -> AnchoredTemplate:
    """Correct generated templates by their training events in smooth shapes.

    Args:
        generated: templates, ``(*batch, n_bins)``.
        training: histograms of the training events, likewise, without weights.
        modes: error of the model, for each template or one for all.
        degree: of the polynomials; 0 corrects the normalization alone.

    Raises:
        DataError: if the shapes differ, or there are not more bins than polynomials.

    Example:
        >>> from sbilib.studies.amplified_templates import Binning
        >>> binning = Binning("x", (0, 1, 2))
        >>> made = BinnedSample(binning, [50.0, 50.0], [50.0, 50.0], 1000.0)
        >>> seen = BinnedSample(binning, [4.0, 8.0], [4.0, 8.0], 100.0)
        >>> none = ShapeModes(np.zeros((0, 2)), np.zeros(2), 8, np.array(1.0))
        >>> found = anchored_template(made, seen, none, degree=0)
        >>> found.sample.fractions.round(4).tolist(), found.pulls.round(4).tolist()
        ([0.06, 0.06], [0.6667])
    """
    template, seen = generated.fractions, training.fractions
    n_bins = template.shape[-1]
    if template.shape != seen.shape or check_count("degree", degree) + 1 >= n_bins:
        raise DataError(
            f"anchors need templates and training histograms alike and more than {degree + 1} bins, got "
            f"{template.shape} and {seen.shape}; bin them alike, or lower the degree"
        )
    noise = np.sqrt(template / training.totals[..., None])
    polynomials = np.polynomial.legendre.legvander(np.linspace(-1, 1, n_bins), degree)
    columns, weights = np.linalg.qr((template / noise)[..., None] * polynomials)
    columns *= np.sign(np.diagonal(weights, axis1=-2, axis2=-1))[..., None, :]
    pulls = (columns * ((seen - template) / noise)[..., None]).sum(-2)
    corrected = template + noise * (columns * pulls[..., None, :]).sum(-1)
    counts = np.maximum(corrected, _LEAST * template) * generated.totals[..., None]
    sample = BinnedSample(generated.binning, counts, generated.squares, generated.totals, generated.name)
    deviations = np.ones((*template.shape[:-1], degree + 1))
    deviations[..., 0] = np.sqrt(1 - template.sum(-1).clip(max=1.0))
    anchors = noise[..., None, :] * np.swapaxes(columns * deviations[..., None, :], -1, -2)
    scaled = modes.shifts / noise[..., None, :]
    left = scaled - (scaled @ columns) @ np.swapaxes(columns, -1, -2)
    shifts = np.concatenate([anchors, left * noise[..., None, :]], axis=-2)
    residual = np.broadcast_to(modes.residual, template.shape)
    return AnchoredTemplate(
        sample, ShapeModes(shifts, residual, modes.n_models, modes.explained), pulls / deviations
    )
