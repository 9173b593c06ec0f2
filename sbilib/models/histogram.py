r"""Template fit in two features: binned densities that move smoothly with the nuisance parameter.

The training events are shifted to each of a few nuisance values :math:`z_k`, with the same events at all of
them, so that templates differ between nodes by the effect of :math:`z` and not by chance.  Bin :math:`j` of
component :math:`c` holds :math:`n_{cj}(z_k)` of them, and

.. math:: f_{cj}(z_k) = \frac{n_{cj}(z_k) + \alpha}{\sum_i n_{ci}(z_k) + \alpha N_\mathrm{bins}}, \qquad
          \log f_{cj}(z) = \sum_{m \le M} a_{cjm}\, P_m(t) - \log \sum_i e^{\dots},

where the Legendre coefficients :math:`a` are those of the least-squares fit to :math:`\log f_{cj}(z_k)` over
the range of the nodes, scaled to :math:`t \in [-1, 1]`, and the last term keeps the sum of all bins at one.

Bins hold equal numbers of events of the half-and-half mixture at :math:`z_0`: quantiles of the first feature,
and in each slice quantiles of the second.  The outer bins have no outer edge, so every event has a bin.

*Empty bins.*  Every bin of every template is given :math:`\alpha` pseudo-events (half an event by default).
A bin that holds none of the training events of a component therefore has a small density and never a zero,
which would forbid the component for an event there; its logarithm has a standard deviation of about
:math:`1/\sqrt{n + \alpha}`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from sbilib.components import LogComponents
from sbilib.errors import DataError, check_count, check_events, check_range
from sbilib.models.classifier import legendre

__all__ = ["HistogramPair", "QuantileBins"]

Shift = Callable[[str, float], tuple[Tensor, Tensor]]
"""Training events ``(n, 2)`` of a component, all at one nuisance value, and their weights ``(n,)``."""


class QuantileBins(NamedTuple):
    """Bins in two features that hold equal numbers of the events they were made from."""

    first: Tensor
    """Inner edges in the first feature, shape ``(n_first - 1,)``."""
    second: Tensor
    """Inner edges in the second feature in each slice of the first, shape ``(n_first, n_second - 1)``."""

    @classmethod
    def of_events(cls, x: Tensor, *, n_first: int, n_second: int) -> QuantileBins:
        """Bins from events ``x`` (n, 2).

        Raises:
            ParameterError: for fewer than one bin.
            DataError: if there are fewer events than bins, or so many equal values that an edge repeats.

        Example:
            >>> x = torch.rand(1000, 2, generator=torch.Generator().manual_seed(1))
            >>> bins = QuantileBins.of_events(x, n_first=4, n_second=5)
            >>> bins.find(x).bincount().tolist() == [50] * 20
            True
        """
        check_count("n_first", n_first, low=1)
        check_count("n_second", n_second, low=1)
        check_events("x", x, 2)
        if len(x) < n_first * n_second:
            raise DataError(f"{len(x)} events are fewer than {n_first} x {n_second} bins; use fewer bins")
        x = x.double()
        order = x[:, 0].argsort()
        slices = x[order].tensor_split(n_first)
        first = torch.stack([part[0, 0] for part in slices[1:]]) if n_first > 1 else x.new_empty(0)
        second = []
        for part in slices:
            cuts = part[:, 1].sort().values.tensor_split(n_second)
            second.append(torch.stack([cut[0] for cut in cuts[1:]]) if n_second > 1 else x.new_empty(0))
        edges = torch.stack(second)
        lowest = torch.stack([part[:, 1].min() for part in slices]).unsqueeze(1)
        steps = (
            torch.cat((x[:, 0].min().reshape(1), first)).diff(),
            torch.cat((lowest, edges), dim=1).diff(dim=1),
        )
        if any(bool((step <= 0).any()) for step in steps):
            raise DataError("many events share one value, so that bins would be empty; use fewer bins")
        return cls(first, edges)

    @property
    def n_bins(self) -> int:
        """Number of bins."""
        return self.second.shape[0] * (self.second.shape[1] + 1)

    def find(self, x: Tensor) -> Tensor:
        """Number of the bin of each event ``x`` (n, 2), shape ``(n,)``."""
        x = x.double()
        row = torch.searchsorted(self.first.contiguous(), x[:, 0].contiguous(), right=True)
        column = (x[:, 1:] >= self.second[row]).sum(dim=1)
        return row * (self.second.shape[1] + 1) + column


class HistogramPair(nn.Module):
    """Binned densities of signal and background, as component densities.

    Values are log probabilities of bins: log densities up to the log of the size of the bin, one constant of
    an event that both components share.

    Args:
        bins: the bins.
        coefficients: of the log templates, shape ``(2, n_bins, degree + 1)``, signal first.
        nuisance_range: range of the nuisance parameter that the templates were made in.

    Raises:
        DataError: if the shape of the coefficients does not fit the bins.

    Example:
        >>> from sbilib.problems import GaussianToy
        >>> toy = GaussianToy(2.0)
        >>> def shifted(component, z):
        ...     events = toy.sample(component, torch.full((20_000,), z), torch.Generator().manual_seed(1))
        ...     return events, torch.ones(len(events))
        >>> pair = HistogramPair.of_shifted(shifted, nuisance_range=toy.scan_range, reference=0.8)
        >>> pair.log_components(torch.zeros(3, 2), torch.linspace(0.4, 1.2, 4)).signal.shape
        torch.Size([3, 4])
    """

    kind: ClassVar[str] = "histogram-pair"
    n_features: ClassVar[int] = 2
    coefficients: Tensor
    first_edges: Tensor
    second_edges: Tensor

    def __init__(
        self, bins: QuantileBins, coefficients: Tensor, *, nuisance_range: tuple[float, float]
    ) -> None:
        super().__init__()
        if coefficients.dim() != 3 or coefficients.shape[:2] != (2, bins.n_bins):
            raise DataError(
                f"coefficients must have shape (2, {bins.n_bins}, degree + 1), got "
                f"{tuple(coefficients.shape)}"
            )
        self.nuisance_range = nuisance_range
        self.register_buffer("coefficients", coefficients)
        self.register_buffer("first_edges", bins.first)
        self.register_buffer("second_edges", bins.second)

    @classmethod
    def of_shifted(
        cls,
        shifted: Shift,
        *,
        nuisance_range: tuple[float, float],
        reference: float,
        n_first: int = 20,
        n_second: int = 20,
        n_nodes: int = 9,
        degree: int = 4,
        pseudo_events: float = 0.5,
    ) -> Self:
        """Templates from training events that can be shifted to any nuisance value.

        Args:
            shifted: ``shifted(component, z)``, all training events ``(n, 2)`` at ``z`` and their weights
                ``(n,)``, such as `HiggsTauTau.all_events`.
            nuisance_range: range of the nodes.
            reference: nuisance value z0 at which the bins are made.
            n_first: bins of the first feature.
            n_second: bins of the second feature in each slice of the first.
            n_nodes: nuisance values at which templates are made.
            degree: degree of the polynomials, below ``n_nodes``.
            pseudo_events: what is added to every bin of every template, in events of mean weight; positive.

        Raises:
            ParameterError: for a number out of range.
            DataError: if events are bad, or too few for the bins.
        """
        low, high = nuisance_range
        check_range("reference", reference, low=low, high=high)
        check_count("n_nodes", n_nodes, low=2)
        check_count("degree", degree, low=0)
        check_range("degree", degree, high=n_nodes - 1)
        check_range("pseudo_events", pseudo_events, low=0.0, include_low=False)
        halves = [shifted(name, reference)[0] for name in ("signal", "background")]
        number = min(len(half) for half in halves)
        mixed = torch.cat([half[:number] for half in halves])
        bins = QuantileBins.of_events(mixed, n_first=n_first, n_second=n_second)
        t = torch.linspace(-1, 1, n_nodes, dtype=torch.float64)
        nodes = (low + high) / 2 + t * (high - low) / 2
        logs = []
        for name in ("signal", "background"):
            filled = torch.stack([_fill(bins, *shifted(name, float(z)), pseudo_events) for z in nodes])
            logs.append((filled / filled.sum(dim=1, keepdim=True)).log())
        basis = _basis(t, degree)
        solution = torch.linalg.lstsq(basis, torch.cat(logs, dim=1)).solution
        coefficients = solution.T.reshape(2, bins.n_bins, degree + 1).contiguous()
        return cls(bins, coefficients, nuisance_range=(float(low), float(high)))

    @property
    def bins(self) -> QuantileBins:
        """The bins."""
        return QuantileBins(self.first_edges, self.second_edges)

    def templates(self, nuisance: Tensor) -> Tensor:
        """Log probabilities of the bins at ``nuisance`` (m,), signal first: shape ``(2, n_bins, m)``."""
        low, high = self.nuisance_range
        t = (nuisance.double() - (low + high) / 2) / ((high - low) / 2)
        values = self.coefficients @ _basis(t, self.coefficients.shape[2] - 1).T
        return values - values.logsumexp(dim=1, keepdim=True)

    @torch.no_grad()
    def log_components(self, x: Tensor, nuisance: Tensor) -> LogComponents:
        """Log probabilities of the bins of events ``x`` (n, 2) at ``nuisance`` (m,); each ``(n, m)``.

        Raises:
            DataError: if events are empty, not finite, or of the wrong shape.
            ParameterError: for a nuisance value outside the range of the templates.
        """
        check_events("x", x, self.n_features)
        check_events("nuisance", nuisance.unsqueeze(-1), 1)
        low, high = self.nuisance_range
        for value in (float(nuisance.min()), float(nuisance.max())):
            check_range("nuisance", value, low=low - 1e-6, high=high + 1e-6)
        return LogComponents(*self.templates(nuisance)[:, self.bins.find(x)].unbind())


def _fill(bins: QuantileBins, x: Tensor, weights: Tensor, pseudo_events: float) -> Tensor:
    """Sum of the weights of events ``x`` (n, 2) in each bin, with pseudo-events of mean weight."""
    weights = weights.double()
    sums = torch.zeros(bins.n_bins, dtype=torch.float64).index_add_(0, bins.find(x), weights)
    return sums + pseudo_events * weights.mean()


def _basis(t: Tensor, degree: int) -> Tensor:
    """Legendre polynomials ``(m, degree + 1)`` at ``t`` (m,) between -1 and 1."""
    return legendre(t.unsqueeze(1) * math.sqrt(3.0), degree)
