r"""Losses of a two-bin model over the size of its two variations.

.. math:: s = (5, 11), \quad b = (50, 50), \quad b^{\mathrm{up}} = (50 + u,\, 50 - u), \quad
          b^{\mathrm{down}} = (50 + d,\, 50 - d)

(Simpson 2023, section 7.5.1).  The source prints the last one with the opposite sign of d, which contradicts
its text and figures: there both variations are equal on the line u = d.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sbilib.differentiable import AnalysisSettings, Templates, expected_covariance, make_loss
from sbilib.errors import ParameterError, check_count
from sbilib.histfactory import Model

__all__ = [
    "LANDSCAPE_LOSSES",
    "full_gaussianity",
    "landscape_values",
    "statistic_at_alpha",
    "turning_points",
    "two_bin_templates",
]

_SIGNAL = (5.0, 11.0)
_BACKGROUND = 50.0
_SETTINGS = AnalysisSettings(floor=0.0)
# Second derivative of code 4p at zero over the bend (up + down)/2 - nominal.
_BEND_CURVATURE = 3.75

LANDSCAPE_LOSSES: Mapping[str, Mapping[str, float]] = {
    "CLs": {"cls": 1.0},
    "p0": {"p0": 1.0},
    "CLs + p0": {"cls": 1.0, "p0": 1.0},
    "CLs + 2 p0": {"cls": 1.0, "p0": 2.0},
    "sigma_mu": {"sigma_mu": 1.0},
    "generalized variance": {"generalized_variance": 1.0},
    "profile Gaussianity": {"gaussianity": 1.0},
}
"""Losses by their names on the page, as weighted sums of named losses of the library."""


def two_bin_templates(place: Tensor) -> Templates:
    """Templates of the two-bin model.

    Args:
        place: u and d in events, ``(*batch, 2)``, each within [-50, 50]; gradients flow through.

    Returns:
        Templates with two bins and batch shape ``(*batch,)``.

    Raises:
        ParameterError: if the last dimension is not two, or a variation would be negative.

    Source:
        Simpson 2023, section 7.5.1.

    Example:
        >>> two_bin_templates(torch.tensor([10.0, -4.0])).up.tolist()
        [60.0, 40.0]
    """
    if place.dim() == 0 or place.shape[-1] != 2 or not bool((place.detach().abs() <= _BACKGROUND).all()):
        raise ParameterError(
            f"place must hold u and d in [-50, 50], (*batch, 2), got shape {tuple(place.shape)} "
            "or a number outside; pass such values"
        )
    one = torch.tensor([1.0, -1.0], dtype=torch.float64)
    place = place.double()
    up, down = (_BACKGROUND + place[..., k : k + 1] * one for k in (0, 1))
    nominal = torch.full_like(up, _BACKGROUND).detach()
    signal = torch.tensor(_SIGNAL, dtype=torch.float64).expand_as(nominal)
    return Templates(signal, nominal, up, down)


def landscape_values(place: Tensor, terms: Mapping[str, float]) -> Tensor:
    """A weighted sum of losses at given variations, ``(*batch,)``, differentiable.

    Args:
        place: u and d, ``(*batch, 2)``.
        terms: weights by name of :data:`sbilib.differentiable.LOSSES`.

    Raises:
        ParameterError: for an unknown loss or a bad place.
    """
    return make_loss(terms, settings=_SETTINGS)(templates=two_bin_templates(place))


def statistic_at_alpha(place: Tensor, alpha: Tensor, *, tested: float, true: float) -> Tensor:
    """Statistic q on data expected for ``true``, with the nuisance parameter held instead of fitted.

    Args:
        place: u and d, ``(*batch, 2)``.
        alpha: values of the nuisance parameter, ``(n,)``.
        tested: signal strength under test.
        true: signal strength of the data.

    Returns:
        ``(n, *batch)``; its minimum over alpha is the profiled statistic.
    """
    model = two_bin_templates(place).model(_SETTINGS)
    data = model.expected_data(model.initial.new_tensor([0.0, true]))
    held = torch.stack([alpha.double(), torch.full_like(alpha.double(), tested)], dim=-1)
    held = held.view(-1, *(1,) * len(model.batch_shape), 2)
    origin = model.initial.new_tensor([0.0, true])
    return 2 * (model.logpdf(origin, data) - model.logpdf(held, data))


def turning_points() -> tuple[float, float]:
    r"""Where on the line u = d the value alpha = 0 stops to be a minimum, for CLs and for p0.

    There both variations are equal, and with code 4p the background is :math:`b_j \pm u\, e(\alpha)` with
    :math:`e = \tfrac{15}{8}\alpha^2 + O(\alpha^4)`.  So alpha = 0 is always stationary, and the second
    derivative of the negative log-likelihood of data :math:`n` is

    .. math:: 1 + \tfrac{15}{4} u \left[\left(1 - \frac{n_1}{\lambda_1}\right)
              - \left(1 - \frac{n_2}{\lambda_2}\right)\right] .

    Returns:
        The values of u where it vanishes, for mu = 1 on data without signal and mu = 0 on data with it.

    Example:
        >>> [round(u, 2) for u in turning_points()]
        [2.98, -2.22]
    """

    def turning(tested: float, true: float) -> float:
        pull = [1 - (_BACKGROUND + true * s) / (_BACKGROUND + tested * s) for s in _SIGNAL]
        return -1.0 / (_BEND_CURVATURE * (pull[0] - pull[1]))

    return turning(1.0, 0.0), turning(0.0, 1.0)


def full_gaussianity(model: Model, *, reach: float = 2.0, n_points: int = 15) -> Tensor:
    r"""Mean squared difference of the likelihood of all parameters from a normal shape.

    On data expected for mu = 1, with the covariance V of the inverse Fisher information, over a grid of
    :math:`\pm r` standard deviations in each of two parameters,

    .. math:: \left\langle \left[ \frac{L(\theta)}{L(\hat\theta)} - e^{-\delta^{\mathsf T} V^{-1} \delta/2}
              \right]^2 \right\rangle, \qquad \delta = \theta - \hat\theta .

    Args:
        model: with the two parameters ``shape`` and ``mu``, templates ``(*batch, n_bins)``.
        reach: r, positive; smaller if the fit has bounds nearer.
        n_points: values of each parameter.

    Returns:
        ``(*batch,)``.

    Raises:
        ParameterError: if the model has other parameters or there are fewer than two points.

    Source:
        Simpson 2023, section 7.5, which does not give the grid.
    """
    check_count("n_points", n_points, low=2)
    if model.parameter_names != ("shape", "mu"):
        raise ParameterError(f"the model must have parameters shape and mu, got {model.parameter_names}")
    origin = model.initial.new_tensor([0.0, 1.0])
    data = model.expected_data(origin)
    covariance = expected_covariance(model)
    sigma = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    steps = torch.linspace(-reach, reach, n_points, dtype=torch.float64)
    grid = torch.cartesian_prod(steps, steps).view(-1, *(1,) * len(model.batch_shape), 2)
    # The signal strength cannot fall below its bound, so neither can the grid.
    offset = torch.maximum(grid * sigma, model.bounds[:, 0] - origin)
    ratio = (model.logpdf(origin + offset, data) - model.logpdf(origin, data)).exp()
    distance = (offset.unsqueeze(-2) @ torch.linalg.inv(covariance) @ offset.unsqueeze(-1)).flatten(-3)
    return (ratio - torch.exp(-0.5 * distance.squeeze(-1))).square().mean(0)
