r"""Losses from the Fisher information: uncertainty of the signal strength, generalized variance, constraints.

At Asimov data the Hessian of the negative log likelihood is the expected information :math:`I`, constraints
included, and its **inverse** is the covariance of the best fit in the asymptotic limit (Cramér-Rao),

.. math:: V = I^{-1}, \qquad \sigma_\mu = \sqrt{V_{\mu\mu}}, \qquad \det V = 1 / \det I .

Minimizing :math:`\sigma_\mu` is the method of INFERNO (de Castro and Dorigo 2019, arXiv:1806.04743); see
Simpson 2023, sections 7.2.7 and 7.5.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sbilib.differentiable.inference import nominal, poi_index
from sbilib.errors import DataError, ParameterError
from sbilib.histfactory import Model
from sbilib.histfactory.asymptotics import root
from sbilib.histfactory.information import covariance, fisher_information, free_block

__all__ = [
    "asimov_information",
    "binned_information",
    "constraint_deviation",
    "expected_covariance",
    "generalized_variance",
    "sigma_mu",
]


def binned_information(expected: Tensor, slopes: Tensor) -> Tensor:
    r"""Fisher information of Poisson counts, :math:`I_{jk} = \sum_i \partial_j n_i\, \partial_k n_i / n_i`.

    Args:
        expected: expected events n in each bin, ``(*batch, n_bins)``, positive.
        slopes: derivatives of n with respect to each parameter, ``(*batch, n_parameters, n_bins)``.

    Returns:
        ``(*batch, n_parameters, n_parameters)``; constraints are not included.

    Raises:
        DataError: if an expected number is not positive.

    Example:
        >>> binned_information(torch.tensor([4.0]), torch.tensor([[2.0]]))
        tensor([[1.]])
    """
    positive = expected.detach() > 0
    if not bool(positive.all()):
        raise DataError(
            f"expected events must be positive in every bin, got {float(expected.detach()[~positive][0]):g} "
            f"in bin {int((~positive).nonzero()[0, -1])}; merge that bin or add a small constant to it"
        )
    return (slopes / expected.unsqueeze(-2)) @ slopes.mT


def asimov_information(model: Model, *, poi_value: float = 1.0) -> Tensor:
    """Expected Fisher information of a model, constraints included, ``(*batch, P, P)``.

    Args:
        model: with a parameter of interest.
        poi_value: its true value; all other parameters are at their initial values.

    Returns:
        For all P parameters in their order; a fixed one has 1 on the diagonal and 0 elsewhere, so that it
        changes neither the determinant nor the inverse of the rest.

    Raises:
        ParameterError: if the model has no parameter of interest.
    """
    return free_block(model, fisher_information(nominal(model, poi_value), model))


def expected_covariance(model: Model, *, poi_value: float = 1.0) -> Tensor:
    """Covariance of the best fit in the asymptotic limit, ``(*batch, P, P)``: the inverse of the information.

    Args:
        model: with a parameter of interest.
        poi_value: its true value.

    Returns:
        For all P parameters in their order, zero for fixed ones; infinite where the data cannot tell
        parameters apart.

    Raises:
        ParameterError: if the model has no parameter of interest.
    """
    return covariance(nominal(model, poi_value), model)


def sigma_mu(model: Model, *, poi_value: float = 1.0) -> Tensor:
    r"""Expected uncertainty of the parameter of interest, :math:`\sqrt{(I^{-1})_{\mu\mu}}`.

    Args:
        model: with a parameter of interest.
        poi_value: its true value.

    Returns:
        ``(*batch,)``, in units of the parameter.

    Raises:
        ParameterError: if the model has no parameter of interest.

    Source:
        de Castro and Dorigo 2019, eq. 9; Simpson 2023, section 7.2.7.

    Example:
        >>> from sbilib.differentiable import Templates
        >>> s, b = torch.tensor([5.0, 11.0]), torch.tensor([50.0, 50.0])
        >>> round(sigma_mu(Templates(s, b, b + 2, b - 2).model()).item(), 4)
        0.6773
    """
    place = poi_index(model)
    return root(expected_covariance(model, poi_value=poi_value)[..., place, place])


def generalized_variance(model: Model, *, poi_value: float = 1.0, log: bool = False) -> Tensor:
    r"""Generalized variance :math:`\det V = 1 / \det I` of all free parameters.

    Args:
        model: with a parameter of interest.
        poi_value: its true value.
        log: return the natural logarithm.

    Returns:
        ``(*batch,)``.

    Raises:
        ParameterError: if the model has no parameter of interest.

    Source:
        Simpson 2023, section 7.5.
    """
    result: Tensor = -torch.linalg.slogdet(asimov_information(model, poi_value=poi_value)).logabsdet
    return result if log else result.exp()


def constraint_deviation(model: Model, name: str = "shape", *, poi_value: float = 1.0) -> Tensor:
    r"""How far a fit would constrain a nuisance parameter beyond its prior, :math:`(1 - \sigma_\alpha)^2`.

    Args:
        model: with a parameter of interest.
        name: of a scalar parameter with a unit normal constraint.
        poi_value: true value of the parameter of interest.

    Returns:
        ``(*batch,)``.

    Raises:
        ParameterError: if the model has no parameter of interest, or no parameter of that name.

    Source:
        Simpson 2023, section 7.4.1, Fig. 7.19, right.
    """
    if name not in model.parameter_names:
        known = ", ".join(model.parameter_names)
        raise ParameterError(f"the model has no scalar parameter {name!r}; choose from {known}")
    place = model.parameter_names.index(name)
    return (1.0 - root(expected_covariance(model, poi_value=poi_value)[..., place, place])).square()
