"""Figures of generative models beside the simulation they learned, from tables of numbers.

>>> import pandas as pd
>>> bins = {"low": [0.0, 1.0], "high": [1.0, 2.0], "generated": [3.0, 1.0], "reference": [2.0, 2.0]}
>>> rows = pd.DataFrame(bins).assign(feature="mass", n_generated=4.0, n_reference=4.0)
>>> len(plot_histograms({"flow": rows}, ["mass"], ["GeV"]).axes)
2
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from sbilib.errors import DataError, ParameterError, check_count, check_range
from sbilib.plotting.legends import legend_above
from sbilib.plotting.style import (
    CLASSIFIER_COLOR,
    FLOW_COLOR,
    NEUTRAL_COLOR,
    SERIES_COLORS,
    SIGNAL_COLOR,
    figure_size,
    style_context,
)

__all__ = [
    "SAMPLE_COLORS",
    "SAMPLE_LINES",
    "plot_areas",
    "plot_correlation_differences",
    "plot_histograms",
    "plot_tail_fractions",
    "plot_verdicts",
]

SAMPLE_COLORS = (FLOW_COLOR, *SERIES_COLORS)
"""Colors of samples that are compared, in their order."""
SAMPLE_LINES = ("-", "--", "-.", ":")
"""Their line styles, repeated after four."""

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_REFERENCE_FILL = "#C8C8C8"


def plot_histograms(
    samples: Mapping[str, pd.DataFrame],
    names: Sequence[str],
    units: Sequence[str],
    *,
    columns: int = 3,
    ratio_range: float = 0.2,
) -> Figure:
    """Density of each feature in each sample, and its ratio to the reference below.

    Args:
        samples: rows of one sample by its name: ``feature``, ends ``low`` and ``high`` of a bin, events
            ``generated`` and ``reference`` in it, and in all ``n_generated`` and ``n_reference``; up to 7
            samples with the same bins and reference.
        names: of the features that are shown.
        units: of these features; ``"1"`` for a pure number.
        columns: features in a row.
        ratio_range: half the height of the ratio panels.

    Returns:
        The figure; for each feature a panel of densities, then one of ratios. Bars are statistical errors of
        a sample, the band those of the reference.

    Raises:
        DataError: if a sample has no bins of a feature, or others than the first sample.
        ParameterError: if there is no sample or too many, or numbers are out of range.
    """
    _check_number(samples)
    check_count("columns", columns, low=1)
    check_range("ratio_range", ratio_range, low=0.0, include_low=False)
    if len(names) != len(units):
        raise ParameterError(f"give a unit for each feature, got {len(names)} and {len(units)}")
    columns = min(columns, len(names))
    rows = -(-len(names) // columns)
    with style_context():
        figure = Figure(figsize=figure_size(aspect=min(0.12 + 0.9 / columns * rows, 3.0)))
        grid = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[2.4, 1.0] * rows)
        places = [(2 * row, column) for row, column in np.ndindex(rows, columns)]
        pairs = [(grid[row, column], grid[row + 1, column]) for row, column in places]
        for above, below in pairs[len(names) :]:
            above.set_visible(False)
            below.set_visible(False)
        for number, (name, unit) in enumerate(zip(names, units, strict=True)):
            above, below = pairs[number]
            _draw_feature(above, below, {label: _bins(label, each, name) for label, each in samples.items()})
            above.set_ylabel("density" if number % columns == 0 else "")
            below.set_ylabel("ratio" if number % columns == 0 else "")
            below.set_xlabel(name if unit == "1" else f"{name} [{unit}]", fontsize=8)
            below.set_ylim(1 - ratio_range, 1 + ratio_range)
        legend_above(figure, [axis for pair in pairs[: len(names)] for axis in pair], columns=3)
    return figure


def plot_areas(table: pd.DataFrame, *, goal: float | None = 0.52, most: float = 0.6) -> Figure:
    """Areas under the ROC curve of two kinds of classifiers, with their null bands.

    Args:
        table: a row per sample, its name as index, with ``trees``, ``trees_error``, ``trees_low``,
            ``trees_high`` and the same of ``network``.
        goal: area to mark with a dashed line; None for no line.
        most: end of the axis; areas beyond are written beside an arrow.

    Returns:
        The figure, a row per sample; gray bands hold 95% of samples of one density.

    Raises:
        DataError: if there is no sample.
    """
    if table.empty:
        raise DataError("there is no sample to show; make at least one")
    place = np.arange(len(table), dtype=float)
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.2 + 0.055 * len(table)))
        axis = figure.subplots()
        for kind, shift, color, marker in (
            ("trees", -0.18, CLASSIFIER_COLOR, "o"),
            ("network", 0.18, SERIES_COLORS[1], "s"),
        ):
            low, high = (table[f"{kind}_{end}"].to_numpy(float) for end in ("low", "high"))
            band = "equal samples, 95%" if kind == "trees" else None
            axis.barh(place + shift, high - low, left=low, height=0.3, color=_REFERENCE_FILL, label=band)
            value, error = (table[name].to_numpy(float) for name in (kind, f"{kind}_error"))
            inside = value <= most
            axis.errorbar(
                value[inside], place[inside] + shift, xerr=error[inside], linestyle="none", marker=marker,
                color=color, capsize=2, elinewidth=1.0, label=kind,
            )  # fmt: skip
            for area, y in zip(value[~inside], place[~inside] + shift, strict=True):
                axis.annotate(
                    f"{area:.3f}", (most, y), (-28, 0), textcoords="offset points", color=color, fontsize=8,
                    ha="right", va="center", arrowprops={"arrowstyle": "->", "color": color},
                )  # fmt: skip
        axis.axvline(0.5, color=NEUTRAL_COLOR, linewidth=0.9, linestyle=":")
        if goal is not None:
            axis.axvline(goal, color=SIGNAL_COLOR, linewidth=0.9, linestyle="--", label=f"goal {goal:g}")
        axis.set_yticks(place, list(table.index))
        axis.set(ylim=(len(table) - 0.5, -0.5), xlabel="area under the ROC curve")
        if (table[["trees", "network"]].to_numpy(float) > most).any():
            axis.set_xlim(right=most)
        legend_above(figure, [axis], columns=4)
    return figure


def plot_verdicts(p_values: pd.DataFrame, values: pd.DataFrame, *, level: float = 0.05) -> Figure:
    """Which comparison tells which sample from the reference.

    Args:
        p_values: a row per sample, a column per comparison; NaN where there is none.
        values: text of each cell, of the same shape.
        level: p-values below count as seen.

    Returns:
        The figure: colored cells are seen.

    Raises:
        DataError: if shapes differ or there are no cells.
        ParameterError: if the level is no probability.
    """
    check_range("level", level, low=0.0, high=1.0, include_low=False, include_high=False)
    if p_values.shape != values.shape or 0 in p_values.shape:
        raise DataError(f"p-values and texts must have one shape, got {p_values.shape} and {values.shape}")
    seen = (p_values.to_numpy(float) < level).astype(float)
    rows, columns = seen.shape
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.16 + 0.055 * rows))
        axis = figure.subplots()
        colors = ListedColormap(["#FFFFFF", "#F2C9A8"])
        axis.pcolormesh(seen, cmap=colors, vmin=0, vmax=1, edgecolors=_REFERENCE_FILL, linewidth=0.8)
        for row, column in np.ndindex(rows, columns):
            text = str(values.iloc[row, column])
            weight = "bold" if seen[row, column] else "normal"
            axis.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=8, fontweight=weight)
        axis.set_xticks(np.arange(columns) + 0.5, list(p_values.columns), fontsize=8)
        axis.set_yticks(np.arange(rows) + 0.5, list(p_values.index), fontsize=8)
        axis.xaxis.tick_top()
        axis.tick_params(length=0)
        axis.set_ylim(rows, 0)
        for spine in axis.spines.values():
            spine.set_visible(False)
    return figure


def plot_correlation_differences(
    samples: Mapping[str, pd.DataFrame], names: Sequence[str], *, limit: float = 0.04
) -> Figure:
    """Correlations of a sample minus those of the reference, for all pairs of features.

    Args:
        samples: rows of one sample by its name: ``first``, ``second`` and ``difference``, each pair once; up
            to three samples.
        names: of the features, in the order of the axes.
        limit: difference at the ends of the colors.

    Returns:
        The figure, a panel per sample.

    Raises:
        DataError: if a pair is missing.
        ParameterError: if there is no sample, or more than three.
    """
    if not 0 < len(samples) <= 3:
        raise ParameterError(f"one to three samples can be drawn, got {len(samples)}; choose some")
    check_range("limit", limit, low=0.0, include_low=False)
    with style_context():
        figure = Figure(figsize=figure_size(aspect=1.15 / len(samples) + 0.1))
        axes = figure.subplots(1, len(samples), squeeze=False)[0]
        for axis, (label, rows) in zip(axes, samples.items(), strict=True):
            image = axis.imshow(_matrix(label, rows, names), cmap="PuOr", vmin=-limit, vmax=limit)
            axis.set_title(label)
            axis.set_xticks(range(len(names)), list(names), rotation=90, fontsize=6)
            axis.set_yticks(range(len(names)), list(names) if axis is axes[0] else [], fontsize=6)
            axis.tick_params(length=0)
        figure.colorbar(image, ax=list(axes), label="difference of correlations", shrink=0.7)
    return figure


def plot_tail_fractions(samples: Mapping[str, pd.DataFrame], names: Sequence[str]) -> Figure:
    """Events of each sample beyond extreme quantiles of the reference, relative to what is expected.

    Args:
        samples: rows of one sample by its name: ``feature``, ``level``, ``fraction``, ``expected`` and
            ``fraction_error``; up to seven samples with the same levels.
        names: of the features that are shown.

    Returns:
        The figure, a panel per level and a row per feature.

    Raises:
        DataError: if a feature or level is missing.
        ParameterError: if there is no sample or too many.
    """
    _check_number(samples)
    levels = sorted(set(next(iter(samples.values()))["level"]))
    place, step = np.arange(len(names), dtype=float), 0.6 / len(samples)
    with style_context():
        figure = Figure(figsize=figure_size(aspect=min(0.25 + 0.05 * len(names), 3.0)))
        axes = figure.subplots(1, len(levels), sharey=True, squeeze=False)[0]
        for axis, level in zip(axes, levels, strict=True):
            for number, (label, rows) in enumerate(samples.items()):
                chosen = rows[rows["level"] == level].set_index("feature")
                missing = set(names) - set(chosen.index)
                if missing:
                    raise DataError(f"{label!r} has no level {level:g} of {sorted(missing)}")
                chosen = chosen.loc[list(names)]
                shift = (number - (len(samples) - 1) / 2) * step
                axis.errorbar(
                    chosen["fraction"] / chosen["expected"], place + shift,
                    xerr=chosen["fraction_error"] / chosen["expected"], linestyle="none",
                    marker=_MARKERS[number], color=SAMPLE_COLORS[number], markersize=3, elinewidth=0.8,
                    label=label,
                )  # fmt: skip
            axis.axvline(1.0, color=NEUTRAL_COLOR, linewidth=0.8)
            share = 100 * min(level, 1 - level)
            axis.set_title(f"{'lowest' if level < 0.5 else 'highest'} {share:g}%", fontsize=9)
            axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=""))
            axis.xaxis.set_major_locator(MaxNLocator(4))
            axis.set_xlabel("% of expected")
        axes[0].set_yticks(place, list(names), fontsize=8)
        axes[0].set_ylim(len(names) - 0.5, -0.5)
        legend_above(figure, list(axes), columns=3)
    return figure


def _check_number(samples: Mapping[str, object]) -> None:
    if not 0 < len(samples) <= len(SAMPLE_COLORS):
        raise ParameterError(f"one to {len(SAMPLE_COLORS)} samples can be drawn, got {len(samples)}")


def _bins(label: str, rows: pd.DataFrame, name: str) -> pd.DataFrame:
    chosen = rows[rows["feature"] == name].sort_values("low")
    if chosen.empty:
        raise DataError(f"{label!r} has no histogram of {name!r}; make it, or leave the feature out")
    return chosen


def _draw_feature(above: Axes, below: Axes, samples: Mapping[str, pd.DataFrame]) -> None:
    first = next(iter(samples.values()))
    edges = np.append(first["low"].to_numpy(float), float(first["high"].iloc[-1]))
    expected, spread = _density(first, "reference", edges)
    unit = np.where(expected > 0, expected, np.nan)
    above.stairs(expected, edges, fill=True, color=_REFERENCE_FILL, label="simulation")
    relative = np.nan_to_num(spread / unit)
    below.stairs(1 + relative, edges, baseline=1 - relative, fill=True, color=_REFERENCE_FILL)
    below.axhline(1.0, color=NEUTRAL_COLOR, linewidth=0.8)
    middle = (edges[1:] + edges[:-1]) / 2
    for number, (label, rows) in enumerate(samples.items()):
        if not np.array_equal(rows["reference"].to_numpy(), first["reference"].to_numpy()):
            raise DataError(f"{label!r} has another reference than the first sample; compare both with one")
        density, error = _density(rows, "generated", edges)
        color, line = SAMPLE_COLORS[number], SAMPLE_LINES[number % len(SAMPLE_LINES)]
        above.stairs(density, edges, color=color, linestyle=line, linewidth=1.2, label=label)
        below.stairs(density / unit, edges, color=color, linestyle=line, linewidth=0.9, baseline=None)
        below.errorbar(middle, density / unit, error / unit, linestyle="none", color=color, elinewidth=0.5)
    above.set(ylim=(0.0, None), xlim=(edges[0], edges[-1]))
    below.sharex(above)
    above.tick_params(labelbottom=False)
    above.yaxis.set_major_locator(MaxNLocator(3))
    below.xaxis.set_major_locator(MaxNLocator(4))


def _density(
    rows: pd.DataFrame, which: str, edges: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Density in each bin, of all events, and its error."""
    scale = rows[f"n_{which}"].to_numpy(float) * np.diff(edges)
    counts = rows[which].to_numpy(float)
    return counts / scale, np.sqrt(counts) / scale


def _matrix(label: str, rows: pd.DataFrame, names: Sequence[str]) -> NDArray[np.float64]:
    matrix = np.full((len(names), len(names)), np.nan)
    np.fill_diagonal(matrix, 0.0)
    place = {name: number for number, name in enumerate(names)}
    for first, second, difference in zip(rows["first"], rows["second"], rows["difference"], strict=True):
        if first in place and second in place:
            matrix[place[first], place[second]] = matrix[place[second], place[first]] = difference
    if np.isnan(matrix).any():
        raise DataError(f"{label!r} lacks the correlation of a pair of features; make it for all pairs")
    return matrix
