r"""How far a profile likelihood is from the normal shape that its Fisher information promises.

On data expected for :math:`\mu_0`, with :math:`\sigma_\mu` from the inverse Fisher information,

.. math::

    G = \frac{1}{K} \sum_{k=1}^{K} \left[ e^{-q(\mu_k)/2} - e^{-(\mu_k - \mu_0)^2 / 2 \sigma_\mu^2} \right]^2,
    \qquad q(\mu) = -2 \ln \frac{L(\mu, \hat{\hat\theta}(\mu))}{L(\hat\mu, \hat\theta)},

at :math:`K` values of :math:`\mu` evenly spaced over :math:`\mu_0 \pm r\,\sigma_\mu`, as far as the bounds
of the parameter allow.  :math:`G = 0` for a normal likelihood, and :math:`G < 1` always.

Simpson 2023, section 7.5, compares the likelihood of all parameters with a normal density on a grid of all of
them.  The profile is compared here instead: it is what intervals and p-values are made of, it costs the same
for any number of nuisance parameters, and likelihood ratios need no normalization.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sbilib.differentiable.inference import ConditionalFit, held_parameters, nominal, poi_index
from sbilib.differentiable.variances import sigma_mu
from sbilib.errors import check_count, check_range
from sbilib.histfactory import Model

__all__ = ["profile_gaussianity"]


def profile_gaussianity(
    model: Model,
    *,
    poi_value: float = 1.0,
    reach: float = 2.0,
    n_points: int = 11,
    conditional_fit: ConditionalFit | None = None,
) -> Tensor:
    """Mean squared difference of the profile likelihood ratio from its normal approximation.

    Args:
        model: with a parameter of interest.
        poi_value: its true value, inside its bounds.
        reach: how many standard deviations to either side are compared.
        n_points: number K of compared values, at least 2.
        conditional_fit: as in :func:`asimov_q`.

    Returns:
        ``(*batch,)``, in [0, 1), differentiable in the templates.

    Raises:
        ParameterError: if the model has no parameter of interest, or a number is out of its range.

    Source:
        Simpson 2023, section 7.5, in the form of the module's text.

    Example:
        >>> from sbilib.differentiable import Templates
        >>> s, b = torch.tensor([50.0, 110.0]), torch.tensor([5000.0, 5000.0])
        >>> few = Templates(s / 100, b / 100, b / 100, b / 100).model()
        >>> many = Templates(s, b, b, b).model()
        >>> bool(profile_gaussianity(many) < profile_gaussianity(few))
        True
    """
    check_range("reach", reach, low=0.0, include_low=False)
    check_count("n_points", n_points, low=2)
    place = poi_index(model)
    low, high = model.bounds[place].tolist()
    check_range("poi_value", poi_value, low=low, high=high)
    sigma = sigma_mu(model, poi_value=poi_value)
    start = (poi_value - reach * sigma).clamp_min(low)
    stop = (poi_value + reach * sigma).clamp_max(high)
    steps = torch.linspace(0.0, 1.0, n_points, dtype=sigma.dtype, device=sigma.device)
    values = start + (stop - start) * steps.view(-1, *(1,) * sigma.dim())
    origin = nominal(model, poi_value)
    data = model.expected_data(origin)
    held = held_parameters(model, values.detach(), data, conditional_fit)
    # The nuisance parameters are at their optimum and stay there; the tested value moves with sigma.
    tested = torch.where(
        torch.arange(held.shape[-1], device=held.device) == place, values.unsqueeze(-1), held
    )
    ratio = (model.logpdf(tested, data) - model.logpdf(origin, data)).clamp_max(0.0).exp()
    normal = torch.exp(-0.5 * ((values - poi_value) / sigma).square())
    return (ratio - normal).square().mean(0)
