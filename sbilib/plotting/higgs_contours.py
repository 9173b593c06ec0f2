r"""Figures of the Higgs case for single models: contours, coverage and widths.

Contours of regions of probability :math:`p` in two parameters lie at

.. math:: \mathrm{NLL} = -\log(1 - p) ,

half the quantile of a chi-squared distribution with two degrees of freedom (Wilks, 1938).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sbilib.likelihood import NLLScan
from sbilib.plotting.style import (
    METHOD_STYLES,
    NEUTRAL_COLOR,
    SERIES_COLORS,
    TRUTH_COLOR,
    MethodStyle,
    figure_size,
    style_context,
)

__all__ = [
    "HISTOGRAM_STYLE",
    "HiggsContours",
    "contour_levels",
    "plot_higgs_contours",
    "plot_test_points",
    "plot_toy_metrics",
]

HISTOGRAM_STYLE = MethodStyle(SERIES_COLORS[0], ":", "D", "histogram")
"""How a template fit is drawn."""
PROBABILITIES = (0.683, 0.95)
_LOOKS: Mapping[str, MethodStyle] = {**METHOD_STYLES, "histogram": HISTOGRAM_STYLE}
_RATIO = r"signal ratio $\mu$"
_SCALE = r"tau energy scale $z$"


def contour_levels(probabilities: Sequence[float] = PROBABILITIES) -> list[float]:
    """Heights of the NLL above its minimum that enclose these probabilities in two parameters.

    Example:
        >>> [round(level, 3) for level in contour_levels((0.683, 0.95))]
        [1.149, 2.996]
    """
    return [-math.log1p(-probability) for probability in probabilities]


class HiggsContours(NamedTuple):
    """Likelihoods of one method on several test sets."""

    title: str
    """Title of the panel, or name in the legend."""
    method: str
    """``"flow"``, ``"classifier"`` or ``"histogram"``."""
    scans: Sequence[NLLScan]
    """NLL of each test set."""
    truths: Sequence[tuple[float, float]]
    """True signal ratio and scale of each test set."""


def plot_higgs_contours(panels: Sequence[Sequence[HiggsContours]], *, scale: float = 1.0) -> Figure:
    """Contours at 68.3 and 95%, all test sets of a model in one panel.

    Args:
        panels: rows of panels.
        scale: factor on the NLL before contours are drawn; 1/9 turns a test set of 9000 events into the
            expectation of one of 1000.
    """
    rows, columns = len(panels), max(len(row) for row in panels)
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.5 * rows))
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axis_row, panel_row in zip(axes, panels, strict=True):
            for axis, panel in zip(axis_row, panel_row, strict=True):
                for scan in panel.scans:
                    _draw(axis, scan, panel.method, scale)
                _mark(axis, panel.truths)
                axis.set_title(panel.title)
            axis_row[0].set_ylabel(_SCALE)
        for axis in axes[-1]:
            axis.set_xlabel(_RATIO)
        _legend(figure, [panel.method for row in panels for panel in row])
    return figure


def plot_test_points(series: Sequence[HiggsContours], *, scale: float = 1.0) -> Figure:
    """Contours at 68.3 and 95% of several methods on the same nine test sets, a panel each.

    Args:
        series: methods with the scans of the same test sets, ratio by ratio and scale by scale.
        scale: factor on the NLL before contours are drawn.
    """
    truths = series[0].truths
    ratios, scales = (sorted({point[k] for point in truths}) for k in (0, 1))
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.95))
        axes = figure.subplots(len(scales), len(ratios), sharex="col", sharey="row", squeeze=False)
        for number, (mu, z) in enumerate(truths):
            axis = axes[len(scales) - 1 - scales.index(z), ratios.index(mu)]
            for one in series:
                _draw(axis, one.scans[number], one.method, scale)
            _mark(axis, [(mu, z)])
            half = (0.17, 0.026)
            axis.set(xlim=(max(0.0, mu - half[0]), mu + half[0]), ylim=(z - half[1], z + half[1]))
        axes[len(scales) // 2, 0].set_ylabel(_SCALE)
        axes[-1, len(ratios) // 2].set_xlabel(_RATIO)
        _legend(figure, [one.method for one in series])
    return figure


def plot_toy_metrics(summary: pd.DataFrame, *, nominal: float = 0.683) -> Figure:
    """Coverage and mean width of several methods, for both parameters.

    Args:
        summary: a row per ``label`` and ``parameter`` (``mu``, ``z``), with ``method``, ``coverage`` and
            ``coverage_error``, ``width`` and ``width_error``.
        nominal: coverage to be reached.
    """
    labels = list(dict.fromkeys(summary["label"]))
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.3 + 0.07 * len(labels)))
        axes = figure.subplots(2, 2, sharey=True)
        for column, (name, symbol) in enumerate((("mu", r"\mu"), ("z", "z"))):
            part = summary[summary["parameter"] == name].set_index("label").loc[labels]
            for row, kind in enumerate(("coverage", "width")):
                axis = axes[row, column]
                for height, label in enumerate(labels):
                    look = _LOOKS[str(part.loc[label, "method"])]
                    value, error = part.loc[label, kind], part.loc[label, f"{kind}_error"]
                    axis.errorbar(value, -height, xerr=error, fmt=look.marker, color=look.color)
                axis.set_yticks([-height for height in range(len(labels))], labels)
                axis.set_ylim(0.6 - len(labels), 0.6)
                axis.set_xlabel(f"{'coverage' if kind == 'coverage' else 'mean width'} of ${symbol}$")
            axes[0, column].axvline(nominal, color=NEUTRAL_COLOR, linestyle=":", linewidth=1.2)
    return figure


def _draw(axis: Axes, scan: NLLScan, method: str, scale: float) -> None:
    look = _LOOKS[method]
    axis.contour(
        scan.grid.signal_ratios.numpy(),
        scan.grid.nuisances.numpy(),
        np.nan_to_num(scan.nll.numpy() * scale, posinf=1e3).T,
        levels=contour_levels(),
        colors=look.color,
        linestyles=look.linestyle,
        linewidths=(1.7, 1.1),
    )


def _mark(axis: Axes, truths: Sequence[tuple[float, float]]) -> None:
    ratios, scales = np.array(truths).T
    axis.plot(ratios, scales, "+", color=TRUTH_COLOR, markersize=7, markeredgewidth=1.3)


def _legend(figure: Figure, methods: Sequence[str]) -> None:
    handles = []
    for method in dict.fromkeys(methods):
        look = _LOOKS[method]
        handles.append(Line2D([], [], color=look.color, linestyle=look.linestyle, label=look.label))  # type: ignore[arg-type]
    cross = Line2D([], [], color=TRUTH_COLOR, marker="+", linestyle="", label="true parameters")
    figure.legend(handles=[*handles, cross], loc="outside upper center", ncols=len(handles) + 1)
