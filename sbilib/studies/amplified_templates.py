r"""Histograms of selected events, for templates of a search.

Of :math:`N` events with weights :math:`w_e`, the ones that pass a selection fill bins,

.. math:: t_i = \frac{1}{W} \sum_{e \in i} w_e, \qquad
          \sigma_i = \frac{1}{W} \sqrt{\sum_{e \in i} w_e^2}, \qquad
          W = \sum_e w_e ,

so :math:`t_i` is the part of all events that the selection puts into bin :math:`i`, and their sum is the
efficiency :math:`\varepsilon` (Gavranovič and Kerševan, source 004, section 5: 25 bins of a classifier score
above 0.55, or of the mass of the two b jets).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sbilib.errors import DataError, ParameterError, check_count, check_range

__all__ = ["BinnedSample", "Binning", "bin_events", "bin_prefixes", "check_filled", "merged_binning"]

_Array = NDArray[np.float64]


@dataclass(frozen=True)
class Binning:
    """Bins of one observable.

    Args:
        name: of the observable, for tables and messages.
        edges: increasing, one more than bins; the last edge belongs to the last bin.
        label: name and unit for axes, by default the name.

    Raises:
        ParameterError: if there are fewer than two edges, or they do not increase.

    Example:
        >>> Binning("mass", (0.0, 1.0, 3.0)).n_bins
        2
    """

    name: str
    edges: tuple[float, ...]
    label: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "edges", tuple(float(edge) for edge in self.edges))
        steps = np.diff(self.edges)
        if len(self.edges) < 2 or not (np.isfinite(steps) & (steps > 0)).all():
            raise ParameterError(
                f"the edges of {self.name!r} must be at least two increasing finite numbers, got "
                f"{self.edges}; sort them"
            )
        object.__setattr__(self, "label", self.label or self.name)

    @classmethod
    def score(cls, *, cut: float = 0.55, n_bins: int = 25) -> Binning:
        """Equal bins of a classifier score from the cut to one (source 004).

        Example:
            >>> Binning.score(n_bins=2).edges
            (0.55, 0.775, 1.0)
        """
        check_range("cut", cut, low=0.0, high=1.0, include_high=False)
        check_count("n_bins", n_bins, low=1)
        return cls("score", tuple(np.linspace(cut, 1.0, n_bins + 1).tolist()), "classifier score")

    @classmethod
    def mass(cls, *, high: float = 3.0, n_bins: int = 25, unit: str = "") -> Binning:
        r"""Equal bins of the mass of the two b jets from zero (source 004: up to 3, in units of its mean).

        Args:
            high: last edge, in the unit of the events.
            n_bins: number of bins.
            unit: for the label, for instance ``"GeV"``; empty for a rescaled mass.

        Example:
            >>> Binning.mass(high=300.0, n_bins=3, unit="GeV").label
            '$m_{bb}$ [GeV]'
        """
        check_range("high", high, low=0.0, include_low=False)
        check_count("n_bins", n_bins, low=1)
        label = f"$m_{{bb}}$ [{unit}]" if unit else r"$m_{bb}$ / mean"
        return cls("m_bb", tuple(np.linspace(0.0, high, n_bins + 1).tolist()), label)

    @property
    def n_bins(self) -> int:
        """Number of bins."""
        return len(self.edges) - 1


@dataclass(frozen=True, eq=False)
class BinnedSample:
    """Histogram of the selected part of a sample; batch dimensions in front, for instance samples of growing
    size.

    Args:
        binning: of the histogram.
        counts: sum of weights, ``(*batch, n_bins)``.
        squares: sum of squared weights, ``(*batch, n_bins)``.
        totals: sum of the weights of all events, selected or not, ``(*batch,)``.
        name: of the sample, for messages.

    Raises:
        DataError: if shapes do not agree, or a total is not positive.

    Example:
        >>> sample = BinnedSample(Binning("x", (0, 1, 2)), [3.0, 1.0], [3.0, 1.0], 10.0)
        >>> sample.fractions.tolist(), float(sample.efficiency)
        ([0.3, 0.1], 0.4)
    """

    binning: Binning
    counts: _Array
    squares: _Array
    totals: _Array
    name: str = "sample"

    def __post_init__(self) -> None:
        for field in ("counts", "squares", "totals"):
            object.__setattr__(self, field, np.asarray(getattr(self, field), dtype=np.float64))
        shape = (*self.totals.shape, self.binning.n_bins)
        if self.counts.shape != shape or self.squares.shape != shape:
            raise DataError(
                f"{self.name}: counts and squares must have shape {shape}, got {self.counts.shape} and "
                f"{self.squares.shape}; give one value for each bin and one total for each histogram"
            )
        if not (self.totals > 0).all():
            raise DataError(f"{self.name} has a total of zero or less; a template needs events")

    @property
    def fractions(self) -> _Array:
        """Part of all events in each bin, ``(*batch, n_bins)``."""
        result: _Array = self.counts / self.totals[..., None]
        return result

    @property
    def errors(self) -> _Array:
        """Standard deviation of :attr:`fractions` by the number of events, ``(*batch, n_bins)``."""
        result: _Array = np.sqrt(self.squares) / self.totals[..., None]
        return result

    @property
    def efficiency(self) -> _Array:
        """Part of all events in any bin, ``(*batch,)``."""
        result: _Array = self.fractions.sum(-1)
        return result

    def rebinned(self, binning: Binning) -> BinnedSample:
        """The same events in wider bins, whose edges are some of the edges of now.

        Raises:
            ParameterError: if an edge is none of those of now, or bins at the ends are left out.

        Example:
            >>> sample = BinnedSample(Binning("x", (0, 1, 2, 3)), [3.0, 1.0, 1.0], [3.0, 1.0, 1.0], 10.0)
            >>> sample.rebinned(Binning("x", (0, 1, 3))).counts.tolist()
            [3.0, 2.0]
        """
        old, new = np.asarray(self.binning.edges), np.asarray(binning.edges)
        if not (np.isin(new, old).all() and new[0] == old[0] and new[-1] == old[-1]):
            raise ParameterError(
                f"{self.name}: new edges must be some of {self.binning.edges}, ends included, got "
                f"{binning.edges}; use merged_binning"
            )
        first = np.searchsorted(old, new[:-1])
        return BinnedSample(
            binning,
            np.add.reduceat(self.counts, first, axis=-1),
            np.add.reduceat(self.squares, first, axis=-1),
            self.totals,
            self.name,
        )


def bin_events(
    values: ArrayLike,
    binning: Binning,
    *,
    selected: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    name: str = "sample",
) -> BinnedSample:
    """Histogram of one sample.

    Args:
        values: the observable of all events, ``(n,)``; events outside of all bins are not selected.
        binning: of the histogram.
        selected: whether each event passes the selection, bool ``(n,)``; by default all do.
        weights: of the events, ``(n,)``, by default one.
        name: of the sample, for messages.

    Raises:
        DataError: if there are no events, arrays differ in length or hold NaN, or no event is selected.

    Example:
        >>> bin_events([0.2, 0.7, 0.9, 5.0], Binning("x", (0, 0.5, 1))).fractions.tolist()
        [0.25, 0.5]
    """
    n = len(np.asarray(values))
    prefix = bin_prefixes(values, binning, [n], selected=selected, weights=weights, name=name)
    return BinnedSample(binning, prefix.counts[0], prefix.squares[0], prefix.totals[0], name)


def bin_prefixes(
    values: ArrayLike,
    binning: Binning,
    n_events: Sequence[int],
    *,
    selected: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    name: str = "sample",
) -> BinnedSample:
    """Histograms of the first events of a sample, for several numbers of events at the cost of one.

    Args:
        values: the observable of all events, ``(n,)``.
        binning: of the histograms.
        n_events: increasing numbers of events before the selection, at most n.
        selected: whether each event passes the selection, bool ``(n,)``.
        weights: of the events, ``(n,)``, by default one.
        name: of the sample, for messages.

    Returns:
        Histograms with the batch shape ``(len(n_events),)``.

    Raises:
        DataError: as :func:`bin_events`, or if there are fewer events than asked for.
        ParameterError: if the numbers are not positive and increasing.

    Example:
        >>> bin_prefixes([0.2, 0.7, 0.9, 0.1], Binning("x", (0, 0.5, 1)), [2, 4]).counts.tolist()
        [[1.0, 1.0], [2.0, 2.0]]
    """
    x, keep, w = _checked(values, selected, weights, name)
    sizes = [int(each) for each in n_events]
    if not sizes or sizes[0] < 1 or (np.diff(sizes) <= 0).any():
        raise ParameterError(f"n_events must be positive and increasing, got {list(n_events)}; sort them")
    if sizes[-1] > len(x):
        raise DataError(f"{name} has {len(x)} events, {sizes[-1]} were asked for; generate more")
    edges = np.asarray(binning.edges)
    place = np.searchsorted(edges, x, side="right") - 1
    place[x == edges[-1]] = binning.n_bins - 1
    inside = keep & (place >= 0) & (place < binning.n_bins)
    counts, squares, totals = [], [], []
    for first, last in zip([0, *sizes[:-1]], sizes, strict=True):
        here = slice(first, last)
        chosen, weight = place[here][inside[here]], w[here][inside[here]]
        counts.append(np.bincount(chosen, weight, minlength=binning.n_bins))
        squares.append(np.bincount(chosen, weight**2, minlength=binning.n_bins))
        totals.append(w[here].sum())
    sample = BinnedSample(
        binning, np.cumsum(counts, axis=0), np.cumsum(squares, axis=0), np.cumsum(totals), name
    )
    _check_any(sample, sizes)
    return sample


def _checked(
    values: ArrayLike, selected: ArrayLike | None, weights: ArrayLike | None, name: str
) -> tuple[_Array, NDArray[np.bool_], _Array]:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) == 0:
        raise DataError(f"{name} needs a value for each event, (n,), got shape {x.shape}; pass one feature")
    keep = np.ones(len(x), dtype=bool) if selected is None else np.asarray(selected)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64)
    if keep.shape != x.shape or keep.dtype != bool or w.shape != x.shape:
        raise DataError(
            f"{name} has {len(x)} values, but selected of shape {keep.shape} ({keep.dtype}) and weights of "
            f"shape {w.shape}; pass one bool and one weight for each event"
        )
    if not (np.isfinite(x[keep]).all() and np.isfinite(w).all()):
        raise DataError(f"{name} has values or weights that are NaN or infinite; remove those events first")
    return x, keep, w


def _check_any(sample: BinnedSample, sizes: Sequence[int]) -> None:
    """A template without a single event is no template."""
    none = (sample.counts <= 0).all(-1)
    if none.any():
        size = sizes[int(none.argmax())]
        raise DataError(
            f"{sample.name}: none of {size} events passes the selection into a bin of "
            f"{sample.binning.name!r} from {sample.binning.edges[0]:g} to {sample.binning.edges[-1]:g}; "
            "lower the cut, check the range, or use more events"
        )


def check_filled(sample: BinnedSample) -> BinnedSample:
    """Return a sample whose bins are all filled.

    A bin that expects nothing makes the likelihood of any data in it zero, and a tiny number in its place
    makes the fit believe in it.

    Raises:
        DataError: if a bin is empty; the message names the bins and what to do.
    """
    empty = (sample.counts <= 0).reshape(-1, sample.binning.n_bins).any(0)
    if empty.any():
        bins = ", ".join(str(i) for i in np.nonzero(empty)[0][:8])
        raise DataError(
            f"{sample.name}: no event in bin {bins} of {sample.binning.n_bins} bins of "
            f"{sample.binning.name!r}; merge bins (merged_binning and rebinned), or use more events"
        )
    return sample


def merged_binning(samples: Sequence[BinnedSample], *, least: float = 10.0) -> Binning:
    """Merge neighboring bins from the left until every sample has enough events in each.

    Args:
        samples: of the same binning.
        least: effective number of events, (sum of weights)^2 / sum of squares, that a bin needs in each.

    Raises:
        ParameterError: if there are no samples or their binnings differ.
        DataError: if a sample has too few events for even one bin.

    Example:
        >>> sample = BinnedSample(Binning("x", (0, 1, 2, 3)), [3.0, 1.0, 2.0], [3.0, 1.0, 2.0], 10.0)
        >>> merged_binning([sample], least=3).edges
        (0.0, 1.0, 3.0)
    """
    if not samples or any(each.binning != samples[0].binning for each in samples):
        raise ParameterError("merged_binning needs samples of one binning; bin them alike first")
    binning = samples[0].binning
    counts = np.concatenate([each.counts.reshape(-1, binning.n_bins) for each in samples])
    squares = np.concatenate([each.squares.reshape(-1, binning.n_bins) for each in samples])
    edges, first = [binning.edges[0]], 0
    for last in range(1, binning.n_bins + 1):
        if _enough(counts[:, first:last], squares[:, first:last], least):
            edges.append(binning.edges[last])
            first = last
    if len(edges) < 2:
        raise DataError(
            f"a sample has fewer than {least:g} effective events in all bins of {binning.name!r} together; "
            "use more events or ask for less"
        )
    # What is left at the right end joins the last full bin.
    edges[-1] = binning.edges[-1]
    return Binning(binning.name, tuple(edges), binning.label)


def _enough(counts: _Array, squares: _Array, least: float) -> bool:
    total, square = counts.sum(1), squares.sum(1)
    return bool((total > 0).all() and (total**2 >= least * square).all())
