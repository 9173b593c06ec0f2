"""Figures of generated samples beside a reference: each feature alone, and how far apart they are.

>>> import numpy as np
>>> events = np.linspace(0, 1, 200)[:, None]
>>> len(plot_marginals({"flow": events**1.1}, events, ["mass"], ["GeV"]).axes)
2
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sbilib.diagnostics import FeatureDivergences
from sbilib.errors import DataError, ParameterError, check_count, check_range
from sbilib.plotting.legends import legend_above
from sbilib.plotting.style import (
    FLOW_COLOR,
    NEUTRAL_COLOR,
    SERIES_COLORS,
    TRUTH_COLOR,
    figure_size,
    style_context,
)

__all__ = ["MEASURE_LABELS", "plot_divergences", "plot_marginals"]

MEASURE_LABELS = {
    "kl": "Kullback-Leibler divergence",
    "jensen_shannon": "Jensen-Shannon divergence",
    "hellinger": "Hellinger distance",
    "chi2": r"$\chi^2$ divergence",
    "wasserstein": "Wasserstein distance",
}
"""Names of the measures of `sbilib.diagnostics.compare_features`."""

_COLORS = (FLOW_COLOR, *SERIES_COLORS)
_LINES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_REFERENCE_FILL = "#C8C8C8"


def plot_marginals(
    samples: Mapping[str, ArrayLike | Tensor],
    reference: ArrayLike | Tensor,
    names: Sequence[str],
    units: Sequence[str],
    *,
    weights: Mapping[str, ArrayLike | Tensor] | None = None,
    n_bins: int = 30,
    columns: int = 3,
    ratio_range: float = 0.2,
) -> Figure:
    """Density of each feature, and its ratio to the reference below.

    The range holds the central 99.8% of the reference, and densities count all events.  Bars are statistical
    errors of a sample, the band those of the reference.

    Args:
        samples: generated events by name, each ``(n, d)``; up to seven.
        reference: events, ``(m, d)``.
        names: of the d features, as axis labels.
        units: of the features; ``"1"`` for a pure number.
        weights: of the events of a sample by its name, ``(n,)``; all alike where none are given.
        n_bins: bins of each feature.
        columns: features in a row.
        ratio_range: half the height of the ratio panels.

    Returns:
        The figure; for each feature a panel of densities, then one of ratios.

    Raises:
        DataError: if samples, names, units and weights do not fit; the message names the sample.
        ParameterError: if there is no sample or too many, or numbers are out of range.
    """
    check_count("n_bins", n_bins, low=1)
    check_count("columns", columns, low=1)
    check_range("ratio_range", ratio_range, low=0.0, include_low=False)
    _check_number(samples)
    truth = _events("reference", reference, names, units)
    drawn = {name: _events(name, each, names, units) for name, each in samples.items()}
    heavy = {name: _weights(name, len(each), weights or {}) for name, each in drawn.items()}
    columns = min(columns, len(names))
    rows = -(-len(names) // columns)
    with style_context():
        # figure_size caps the aspect; a page of many rows is as tall as that.
        figure = Figure(figsize=figure_size(aspect=min(0.12 + 0.9 / columns * rows, 3.0)))
        grid = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[2.4, 1.0] * rows)
        pairs = [
            (grid[2 * row, column], grid[2 * row + 1, column]) for row, column in np.ndindex(rows, columns)
        ]
        for above, below in pairs[len(names) :]:
            above.set_visible(False)
            below.set_visible(False)
        for index, (name, unit) in enumerate(zip(names, units, strict=True)):
            above, below = pairs[index]
            edges = _edges(name, truth[:, index], n_bins)
            values = {label: (each[:, index], heavy[label]) for label, each in drawn.items()}
            _draw_feature(above, below, truth[:, index], values, edges)
            above.set_ylabel("density" if index % columns == 0 else "")
            below.set_ylabel("ratio" if index % columns == 0 else "")
            below.set(xlabel=name if unit == "1" else f"{name} [{unit}]")
            below.set_ylim(1 - ratio_range, 1 + ratio_range)
        shown = [axis for pair in pairs[: len(names)] for axis in pair]
        legend_above(figure, shown, columns=4)
    return figure


def plot_divergences(
    results: Mapping[str, FeatureDivergences], measure: str = "kl", *, limit: float | None = 2.0
) -> Figure:
    """Divergence of each feature over its baseline, with the band of the baseline.

    Args:
        results: of `sbilib.diagnostics.compare_features` by name of the sample, with the same features; up to
            seven.
        measure: one of `sbilib.diagnostics.DIVERGENCES`.
        limit: ratio to mark with a dashed line; None for no line.

    Returns:
        The figure, a row per feature; gray bands hold 95% of samples of the reference simulation.

    Raises:
        DataError: if features differ.
        ParameterError: if the measure is unknown or there is no result or too many.
    """
    _check_number(results)
    names = next(iter(results.values())).names
    for label, result in results.items():
        if result.names != names:
            raise DataError(
                f"{label!r} has features {list(result.names)}, but the first sample has {list(names)}; "
                "compare the same features in the same order"
            )
    place, step = np.arange(len(names), dtype=float), 0.7 / len(results)
    with style_context():
        figure = Figure(figsize=figure_size(aspect=min(0.2 + 0.045 * len(names), 3.0)))
        axis = figure.subplots()
        for number, (label, result) in enumerate(results.items()):
            column = result.column(measure)
            unit = result.baseline[:, column]
            low, high = (each[:, column] / unit for each in (result.baseline_low, result.baseline_high))
            rows = place + (number - (len(results) - 1) / 2) * step
            band = "baseline, 95%" if number == 0 else None
            axis.barh(rows, high - low, left=low, height=0.85 * step, color=_REFERENCE_FILL, label=band)
            axis.errorbar(
                result.ratio[:, column], rows, xerr=result.error[:, column] / unit, linestyle="none",
                marker=_MARKERS[number], color=_COLORS[number], capsize=2, elinewidth=1.0, label=label,
            )  # fmt: skip
        axis.axvline(1.0, color=NEUTRAL_COLOR, linewidth=0.9, linestyle=":")
        if limit is not None:
            axis.axvline(limit, color=TRUTH_COLOR, linewidth=0.9, linestyle="--", label=f"limit {limit:g}")
        axis.set_yticks(place, names)
        axis.set(ylim=(len(names) - 0.5, -0.5), xscale="log")
        axis.set_xlabel(f"{MEASURE_LABELS[measure]} over that of two reference samples")
        axis.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:g}"))
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.xaxis.set_minor_locator(NullLocator())
        legend_above(figure, [axis], columns=4)
    return figure


def _check_number(samples: Mapping[str, object]) -> None:
    if not 0 < len(samples) <= len(_COLORS):
        raise ParameterError(f"one to {len(_COLORS)} samples can be drawn, got {len(samples)}; choose some")


def _events(
    label: str, events: ArrayLike | Tensor, names: Sequence[str], units: Sequence[str]
) -> NDArray[np.float64]:
    values = np.asarray(events, dtype=np.float64)
    if values.ndim != 2 or len(values) == 0 or not values.shape[1] == len(names) == len(units):
        raise DataError(
            f"{label!r} must have shape (n_events, n_features) with a name and a unit for each feature, got "
            f"{values.shape}, {len(names)} names and {len(units)} units; select the same features everywhere"
        )
    return values


def _weights(label: str, n_events: int, weights: Mapping[str, ArrayLike | Tensor]) -> NDArray[np.float64]:
    values = np.asarray(weights.get(label, np.ones(n_events)), dtype=np.float64)
    if values.shape != (n_events,):
        raise DataError(f"weights of {label!r} must have shape ({n_events},), got {values.shape}")
    return values


def _edges(name: str, values: NDArray[np.float64], n_bins: int) -> NDArray[np.float64]:
    low, high = np.quantile(values, (0.001, 0.999))
    if not low < high:
        raise DataError(f"{name!r} of the reference has no spread between its 0.1% and 99.9%; leave it out")
    return np.linspace(low, high, n_bins + 1)


def _density(
    values: NDArray[np.float64], weights: NDArray[np.float64], edges: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Density in each bin, of all events, and its error."""
    scale = weights.sum() * np.diff(edges)
    sums, squares = (np.histogram(values, edges, weights=each)[0] for each in (weights, weights**2))
    return sums / scale, np.sqrt(squares) / scale


def _draw_feature(
    above: Axes,
    below: Axes,
    truth: NDArray[np.float64],
    samples: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
    edges: NDArray[np.float64],
) -> None:
    expected, spread = _density(truth, np.ones(len(truth)), edges)
    unit = np.where(expected > 0, expected, np.nan)
    above.stairs(expected, edges, fill=True, color=_REFERENCE_FILL, label="reference")
    relative = np.nan_to_num(spread / unit)
    below.stairs(1 + relative, edges, baseline=1 - relative, fill=True, color=_REFERENCE_FILL)
    below.axhline(1.0, color=NEUTRAL_COLOR, linewidth=0.8)
    middle = (edges[1:] + edges[:-1]) / 2
    for number, (label, (values, weights)) in enumerate(samples.items()):
        density, error = _density(values, weights, edges)
        color, line = _COLORS[number], _LINES[number % len(_LINES)]
        above.stairs(density, edges, color=color, linestyle=line, linewidth=1.3, label=label)
        below.stairs(density / unit, edges, color=color, linestyle=line, linewidth=1.0, baseline=None)
        below.errorbar(middle, density / unit, error / unit, linestyle="none", color=color, elinewidth=0.7)
    above.set(ylim=(0.0, None), xlim=(edges[0], edges[-1]))
    below.sharex(above)
    above.tick_params(labelbottom=False)
    above.yaxis.set_major_locator(MaxNLocator(3))
    below.xaxis.set_major_locator(MaxNLocator(4))
