r"""Extended likelihood: the number of events counts, and the nuisance parameter decides how many pass.

Where events fall below a threshold after a change of the energy scale, both rates depend on it.  With
:math:`B_0` expected background events at the reference value :math:`z_0`, and efficiencies
:math:`\varepsilon_c(z)` relative to those at :math:`z_0`,

.. math:: \nu_s = \mu\, B_0\, \varepsilon_s(z), \qquad \nu_b = B_0\, \varepsilon_b(z), \qquad
          L(\mu, z) = \nu_s + \nu_b - \sum_i w_i \log\bigl[\nu_s\, p_s(x_i \mid z)
          + \nu_b\, p_b(x_i \mid z)\bigr],

so :math:`\mu` is the ratio of expected signal to background at :math:`z_0`, where the number of events
follows a Poisson distribution (Barlow, Nucl. Instrum. Meth. A297 (1990) 496).  Densities are those of the
events that pass, at each :math:`z`.

Sets share one table of events.  :math:`L` of each set is a spline through a few nodes around the likelihoods
of all sets, as in `sbilib.likelihood.local`; the logarithms are computed once for each event of the table
and added up for each set.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sbilib.errors import DataError, ParameterError, check_count, check_range
from sbilib.likelihood.checks import check_interval_range
from sbilib.likelihood.intervals import Intervals, crossing_interval
from sbilib.likelihood.local import NEGLIGIBLE_NLL, LocalLikelihood
from sbilib.likelihood.table import NuisanceTable, second_derivative_operator, spline_weights

__all__ = ["ExpectedYields", "ExtendedFits", "extended_surfaces", "fit_extended"]

_COARSE_NODES, _FINE_NODES = (14, 13), (24, 13)
_PILOT_SETS = 64
_DEPTH = 20.0
_MAX_WIDENINGS = 6
_BLOCK_LOGS = 2**22


@dataclass(frozen=True)
class ExpectedYields:
    """Expected numbers of events as functions of the signal ratio and the nuisance parameter.

    Args:
        background: expected background events at the reference value, positive.
        nodes: nuisance values, increasing, at least four, shape ``(n_nodes,)``.
        signal_efficiency: efficiency of signal at the nodes over that at the reference value.
        background_efficiency: the same of background.

    Raises:
        ParameterError: for a yield that is not positive, or nodes that do not increase.
        DataError: if an efficiency is not finite and positive, or the shapes differ.

    Example:
        >>> yields = ExpectedYields.constant(800.0, (0.9, 1.1))
        >>> yields.expected(torch.tensor([0.25]), torch.tensor([1.0])).tolist()
        [1000.0]
    """

    background: float
    nodes: Tensor
    signal_efficiency: Tensor
    background_efficiency: Tensor

    def __post_init__(self) -> None:
        check_range("background", self.background, low=0.0, include_low=False)
        if self.nodes.dim() != 1 or len(self.nodes) < 4 or not bool((self.nodes.diff() > 0).all()):
            raise ParameterError(f"nodes must be at least four increasing values, got {self.nodes.tolist()}")
        for name in ("signal_efficiency", "background_efficiency"):
            values = getattr(self, name)
            if values.shape != self.nodes.shape or not bool((values.isfinite() & (values > 0)).all()):
                raise DataError(f"{name} must be positive and finite at each node, got {values.tolist()}")
            object.__setattr__(self, name, values.double())
        object.__setattr__(self, "nodes", self.nodes.double())

    @classmethod
    def constant(cls, background: float, nuisance_range: tuple[float, float]) -> ExpectedYields:
        """Yields that do not depend on the nuisance parameter: what counts is the number of events alone."""
        nodes = torch.linspace(*nuisance_range, 4, dtype=torch.float64)
        return cls(background, nodes, torch.ones_like(nodes), torch.ones_like(nodes))

    def log_efficiencies(self, nuisance: Tensor) -> tuple[Tensor, Tensor]:
        """Log efficiencies of signal and background at ``nuisance`` values (m,) inside the nodes."""
        return (
            _spline(self.nodes, self.signal_efficiency.log(), nuisance),
            _spline(self.nodes, self.background_efficiency.log(), nuisance),
        )

    def expected(self, signal_ratio: Tensor, nuisance: Tensor) -> Tensor:
        """Expected events of both components together, elementwise."""
        signal, background = self.log_efficiencies(nuisance.double())
        return self.background * (signal_ratio.double() * signal.exp() + background.exp())


@dataclass(frozen=True)
class ExtendedFits:
    """Fits of many sets with the extended likelihood.

    Attributes:
        ratio_interval: profile interval of the signal ratio, with the best fit.
        nuisance_interval: profile interval of the nuisance parameter, likewise.
        level: threshold on -2 log lambda.
    """

    ratio_interval: Intervals
    nuisance_interval: Intervals
    level: float


def fit_extended(
    table: NuisanceTable,
    index: Tensor,
    offsets: Tensor,
    yields: ExpectedYields | None,
    *,
    ratio_range: tuple[float, float] = (0.0, 0.5),
    level: float = 1.0,
) -> ExtendedFits:
    """Best fits and profile intervals of sets of any sizes that share the events of a table.

    Args:
        table: log densities of the events; the nuisance parameter is searched between its ends.
        index: events of all sets, one set after the other, shape ``(n,)``.
        offsets: where each set begins in ``index``, shape ``(n_sets,)``.
        yields: expected numbers of events; None for the likelihood of the mixture alone, in which the number
            of events says nothing.
        ratio_range: scanned range of the signal ratio.
        level: threshold on -2 log lambda; 1 for 68.3%.

    Raises:
        DataError: for a set without events, or an index out of the table.
        ParameterError: for a bad range or level, or yields that do not cover the table.

    Example:
        >>> from sbilib.problems import GaussianToy, make_test_set
        >>> toy, generator = GaussianToy(2.0), torch.Generator().manual_seed(2)
        >>> data = make_test_set(toy, signal_ratio=0.25, nuisance=0.8, generator=generator, n_events=1000)
        >>> table = NuisanceTable.build(toy, data.events, torch.linspace(*toy.scan_range, 31))
        >>> yields = ExpectedYields.constant(800.0, toy.scan_range)
        >>> fits = fit_extended(table, torch.arange(1000), torch.tensor([0]), yields)
        >>> bool(fits.ratio_interval.contains(0.25)), bool(fits.nuisance_interval.contains(0.8))
        (True, True)
    """
    surfaces = extended_surfaces(table, index, offsets, yields, ratio_range=ratio_range)
    profiles = surfaces.profiles()
    return ExtendedFits(
        crossing_interval(profiles.signal_ratio, level=level),
        crossing_interval(profiles.nuisance, level=level),
        level,
    )


def extended_surfaces(
    table: NuisanceTable,
    index: Tensor,
    offsets: Tensor,
    yields: ExpectedYields | None,
    *,
    ratio_range: tuple[float, float] = (0.0, 0.5),
    n_nodes: tuple[int, int] = _FINE_NODES,
) -> LocalLikelihood:
    """NLL of every set as a spline surface in a box around all of them; arguments of `fit_extended`.

    Args:
        table: log densities of the events.
        index: events of all sets, shape ``(n,)``.
        offsets: where each set begins, shape ``(n_sets,)``.
        yields: expected numbers of events, or None.
        ratio_range: scanned range of the signal ratio.
        n_nodes: signal ratios and nuisance values at which the likelihood is evaluated.
    """
    low, high = check_interval_range("ratio_range", ratio_range, low=0.0)
    for number in n_nodes:
        check_count("n_nodes", number, low=4)
    sizes = _check_sets(table, index, offsets)
    limits = (low, high, float(table.nodes[0]), float(table.nodes[-1]))
    if yields is not None and (yields.nodes[0] > limits[2] + 1e-6 or yields.nodes[-1] < limits[3] - 1e-6):
        raise ParameterError(
            f"the yields cover {float(yields.nodes[0]):g} to {float(yields.nodes[-1]):g}, the table "
            f"{limits[2]:g} to {limits[3]:g}; give efficiencies over the range of the table"
        )
    n_pilot = min(_PILOT_SETS, len(offsets))
    pilot = slice(0, int(sizes[:n_pilot].sum()))
    sums = _Sums(table, yields)
    coarse = sums.surfaces(index[pilot], offsets[:n_pilot], sizes[:n_pilot], limits, _COARSE_NODES)
    box = _box_of(coarse, _DEPTH)
    for _ in range(_MAX_WIDENINGS):
        local = sums.surfaces(index, offsets, sizes, box, n_nodes)
        wider = _widened(local, box, limits)
        if wider == box:
            break
        box = wider
    return local


_Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class _Sums:
    """Sums over the events of sets at the nodes of a box."""

    table: NuisanceTable
    yields: ExpectedYields | None

    def surfaces(
        self, index: Tensor, offsets: Tensor, sizes: Tensor, box: _Box, n_nodes: tuple[int, int]
    ) -> LocalLikelihood:
        """NLL of sets at the nodes of ``box``: signal ratios even in the root of the fraction."""
        p_low, p_high = box[0] / (1 + box[0]), box[1] / (1 + box[1])
        fractions = torch.linspace(p_low**0.5, p_high**0.5, n_nodes[0], dtype=torch.float64).square()
        fractions[0], fractions[-1] = p_low, p_high
        z = torch.linspace(box[2], box[3], n_nodes[1], dtype=torch.float64)
        used, place = torch.unique(index, return_inverse=True)
        rows = torch.empty(len(used), n_nodes[0] * n_nodes[1], dtype=torch.float32)
        fixed = torch.empty(len(used), dtype=torch.float64)
        step = max(1, _BLOCK_LOGS // rows.shape[1])
        for start in range(0, len(used), step):
            part = slice(start, start + step)
            logs = self._logs(used[part], fractions, z).flatten(1)
            # What an event has in common at all nodes is added apart, so that single precision suffices.
            fixed[part] = logs.mean(dim=1)
            rows[part] = (logs - fixed[part, None]).float()
        summed = functional.embedding_bag(place, rows, offsets, mode="sum").double()
        common = functional.embedding_bag(place, fixed.unsqueeze(1), offsets, mode="sum")
        nll = -(summed + common).reshape(len(offsets), *n_nodes)
        if self.yields is not None:
            ratios = fractions / (1 - fractions)
            expected = self.yields.expected(ratios.repeat_interleave(len(z)), z.repeat(len(ratios)))
            nll = (
                nll
                + expected.reshape(1, *n_nodes)
                - sizes[:, None, None] * torch.tensor(self.yields.background, dtype=torch.float64).log()
            )
        minimum = nll.flatten(1).min(dim=1).values
        return LocalLikelihood(fractions, z, nll - minimum[:, None, None], minimum)

    def _logs(self, events: Tensor, fractions: Tensor, z: Tensor) -> Tensor:
        """Log of the mixture of events at all nodes, shape ``(n, n_fractions, n_nuisances)``."""
        spline = spline_weights(self.table.nodes, z)
        value = spline.weights[:, 0]
        lines = torch.stack((spline.cell, spline.cell + 1), dim=1)
        d, curved = (part[:, events] for part in self.table.log_ratio)
        log_ratio = torch.einsum("jk,jkn->nj", value[:, :2], d[lines]) + torch.einsum(
            "jk,jkn->nj", value[:, 2:], curved[lines]
        )
        base = _spline(self.table.nodes, self.table.background[events].T, z).T
        if self.yields is None:
            signal_weight, background_weight = fractions[:, None], 1 - fractions[:, None]
        else:
            signal, background = self.yields.log_efficiencies(z)
            signal_weight = (fractions / (1 - fractions))[:, None] * signal.exp()
            background_weight = background.exp().expand_as(signal_weight)
        largest = log_ratio.clamp(min=0)
        grown, shrunk = (log_ratio - largest).exp()[:, None], (-largest).exp()[:, None]
        mixture = signal_weight * grown + background_weight * shrunk
        # Where the ratio overflows the range of exp and there is no signal, the background is all there is.
        tiny = torch.finfo(torch.float64).tiny
        return mixture.clamp(min=tiny).log() + (largest + base)[:, None]


def _spline(nodes: Tensor, values: Tensor, at: Tensor) -> Tensor:
    """The cubic spline through ``values`` (n_nodes, ...) at places ``at`` (m,); returns ``(m, ...)``."""
    spline = spline_weights(nodes, at.to(nodes))
    curved = (second_derivative_operator(nodes) @ values.reshape(len(nodes), -1)).reshape(values.shape)
    lines = torch.stack((spline.cell, spline.cell + 1), dim=1)
    weights = spline.weights[:, 0]
    return torch.einsum("jk,jk...->j...", weights[:, :2], values[lines]) + torch.einsum(
        "jk,jk...->j...", weights[:, 2:], curved[lines]
    )


def _check_sets(table: NuisanceTable, index: Tensor, offsets: Tensor) -> Tensor:
    """Number of events of each set."""
    ends = torch.cat((offsets, offsets.new_tensor([len(index)])))
    sizes = ends.diff()
    if len(offsets) == 0 or int(offsets[0]) != 0 or not bool((sizes > 0).all()):
        raise DataError("offsets must begin at 0 and increase, one for each set, and no set may be empty")
    if int(index.min()) < 0 or int(index.max()) >= table.n_events:
        raise DataError(
            f"index must name events 0 to {table.n_events - 1} of the table, got {int(index.min())} to "
            f"{int(index.max())}"
        )
    return sizes.double()


def _box_of(surfaces: LocalLikelihood, depth: float) -> _Box:
    """Where any of the sets has an NLL within ``depth`` of its smallest."""
    (ratio_low, ratio_high), (low, high) = surfaces.reach(depth)
    return (float(ratio_low.min()), float(ratio_high.max()), float(low.min()), float(high.max()))


def _widened(local: LocalLikelihood, box: _Box, limits: _Box) -> _Box:
    """The box, half as wide again on each side where the likelihood of some set is not negligible."""
    rims = (local.nll[:, 0], local.nll[:, -1], local.nll[:, :, 0], local.nll[:, :, -1])
    sides = []
    for number, rim in enumerate(rims):
        width = box[1] - box[0] if number < 2 else box[3] - box[2]
        step = width / 2 if float(rim.min()) < NEGLIGIBLE_NLL else 0.0
        if number % 2:
            sides.append(min(limits[number], box[number] + step))
        else:
            sides.append(max(limits[number], box[number] - step))
    return (sides[0], sides[1], sides[2], sides[3])
