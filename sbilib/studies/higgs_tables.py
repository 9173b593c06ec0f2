"""Densities of two features from a table, for studies that evaluate a model on millions of events.

The table covers coordinates in which the events are nearly normal (`FeatureScaling`) and some nuisance
values; between them the log densities are cubic in the coordinates (`TabulatedMembers`) and cubic splines of
the nuisance parameter.

A flow has kinks in its second derivative where its splines have knots, and they move with the nuisance
parameter.  A coarse table turns them into waves of the log-likelihood along the nuisance parameter.  On the
Higgs case, for 1000 events, their amplitude is 0.3 at a spacing of 0.1, which moves the ends of intervals by
a third of a standard deviation, and 0.07 at 0.05.  Classifiers with a polynomial in the nuisance parameter
have none (below 0.01 at 0.1).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from sbilib.components import ComponentDensities, LogComponents
from sbilib.errors import ParameterError, check_count, check_range
from sbilib.likelihood.table import second_derivative_operator, spline_weights
from sbilib.models.scaling import FeatureScaling
from sbilib.models.tabulated import TabulatedMembers

__all__ = ["TabulatedPair"]

_REACH = 5.0


class TabulatedPair:
    """Densities of two features, tabulated.

    Events beyond five standard deviations in a coordinate are given to the densities themselves, in the
    coordinates of the table.

    Args:
        densities: of physical events.
        scaling: coordinates of the table, without indicators.
        nuisance_range: range of the nuisance parameter that the table covers.
        n_nodes: nuisance values in it, at least 4.
        spacing: distance of its points in the coordinates.

    Raises:
        ParameterError: for a number out of range, or a scaling of other than two features.
        DataError: if the densities are not finite on the table.

    Example:
        >>> from sbilib.problems import GaussianToy
        >>> from sbilib.studies.higgs_scaling import fit_scaling
        >>> toy = GaussianToy(0.5)
        >>> table = TabulatedPair(toy, fit_scaling(toy, n_events=1000), nuisance_range=toy.scan_range)
        >>> x, z = torch.tensor([[0.3, -1.2]]).double(), torch.tensor([0.71]).double()
        >>> bool((table.log_components(x, z).signal - toy.log_components(x, z).signal).abs() < 1e-4)
        True
    """

    kind: ClassVar[str] = "tabulated-pair"
    n_features: ClassVar[int] = 2

    def __init__(
        self,
        densities: ComponentDensities,
        scaling: FeatureScaling,
        *,
        nuisance_range: tuple[float, float],
        n_nodes: int = 21,
        spacing: float = 0.05,
    ) -> None:
        if scaling.config.n_coordinates != 2 or scaling.config.indicators:
            raise ParameterError(f"a table needs a scaling of two features, got {scaling.config}")
        check_count("n_nodes", n_nodes, low=4)
        self.scaling, self.scan_range = scaling, nuisance_range
        self.nodes = torch.linspace(*nuisance_range, n_nodes, dtype=torch.float64)
        box = torch.tensor([[-_REACH, _REACH]] * 2)
        behind = _InCoordinates(densities, scaling)
        self._tables = TabulatedMembers([behind], self.nodes, box=box, spacing=spacing)
        self._curvature = second_derivative_operator(self.nodes)

    def log_components(self, x: Tensor, nuisance: Tensor) -> LogComponents:
        """Log densities of events ``x`` (n, 2) at ``nuisance`` values (m,) in the range of the table.

        Raises:
            DataError: if the events are empty, not finite, or of the wrong shape.
            ParameterError: for a nuisance value outside the range.
        """
        low, high = self.scan_range
        for value in (float(nuisance.min()), float(nuisance.max())):
            check_range("nuisance", value, low=low - 1e-6, high=high + 1e-6)
        found = self._tables.evaluate(self.scaling.checked(x.double()))
        spline = spline_weights(self.nodes, nuisance.double().clamp(low, high))
        matrix = torch.zeros(len(nuisance), len(self.nodes), dtype=torch.float64)
        weights, rows = spline.weights[:, 0], torch.arange(len(nuisance))
        matrix[rows, spline.cell] += weights[:, 0]
        matrix[rows, spline.cell + 1] += weights[:, 1]
        matrix += weights[:, 2:3] * self._curvature[spline.cell]
        matrix += weights[:, 3:4] * self._curvature[spline.cell + 1]
        return LogComponents(found.signal[0] @ matrix.T, found.background[0] @ matrix.T)


class _InCoordinates:
    """Densities as functions of the coordinates of a scaling."""

    def __init__(self, densities: ComponentDensities, scaling: FeatureScaling) -> None:
        self._densities, self._scaling = densities, scaling

    def log_components(self, x: Tensor, nuisance: Tensor) -> LogComponents:
        """Log densities at coordinates ``x`` (n, 2)."""
        return self._densities.log_components(self._scaling.inverse(x.double()), nuisance)
