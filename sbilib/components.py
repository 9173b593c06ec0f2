r"""The one record that problems and models hand to the likelihood.

A method that knows the densities of signal and background, exactly or learned, returns them for
``n`` events at ``m`` values of the nuisance parameter :math:`z`,

.. math:: s_{ij} = \log p(x_i \mid \mathrm{sig}, z_j) + c_i, \qquad
          b_{ij} = \log p(x_i \mid \mathrm{bkg}, z_j) + c_i,

where the constant :math:`c_i` of an event is shared by both and drops out of every likelihood ratio
(it is zero for exact densities and flows, and minus the log reference density for classifiers).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

__all__ = ["ComponentDensities", "LogComponents"]


class LogComponents(NamedTuple):
    """Log densities of both components, up to one constant per event that they share."""

    signal: Tensor
    """Signal, shape ``(n_events, n_nuisance)``."""
    background: Tensor
    """Background, shape ``(n_events, n_nuisance)``."""


class ComponentDensities(Protocol):
    """Anything the likelihood can use: exact densities, a flow pair, a classifier pair, histograms."""

    def log_components(self, x: Tensor, nuisance: Tensor) -> LogComponents:
        """Log densities of events ``x`` (n_events, n_features) at ``nuisance`` values (n_nuisance,)."""
        ...
