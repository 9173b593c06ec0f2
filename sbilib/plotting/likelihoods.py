"""Figures of likelihoods: contours over signal ratio and nuisance parameter, and how intervals are built."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sbilib.likelihood import Intervals, NLLScan, Profile, QuarticFit
from sbilib.plotting.style import METHOD_STYLES, NEUTRAL_COLOR, TRUTH_COLOR, figure_size, style_context

__all__ = ["ContourPanel", "plot_contours", "plot_interval_construction"]

CONTOUR_LEVELS = (0.5, 2.0)
_RATIO_LABEL = r"signal ratio $\mu$"


class ContourPanel(NamedTuple):
    """One panel of a contour figure."""

    title: str
    """Title of the panel."""
    method: str
    """``"flow"`` or ``"classifier"``."""
    scans: Sequence[NLLScan]
    """NLL of each test set by the method."""
    exact: Sequence[NLLScan]
    """Exact NLL of the same test sets."""
    truths: Sequence[tuple[float, float]]
    """True signal ratio and nuisance value of each test set."""


def plot_contours(panels: Sequence[Sequence[ContourPanel]], *, scale: float = 1.0) -> Figure:
    """Contours of the NLL at 0.5 and 2, learned and exact, for several test sets a panel.

    Args:
        panels: rows of panels.
        scale: factor on the NLL before the contours are drawn; 1/9 turns a test set of 9000 events into
            the expectation of one of 1000.

    Returns:
        The figure; nuisance values are in units of pi rad.
    """
    rows, columns = len(panels), max(len(row) for row in panels)
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.5 * rows))
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axis_row, panel_row in zip(axes, panels, strict=True):
            for axis, panel in zip(axis_row, panel_row, strict=True):
                _draw_panel(axis, panel, scale)
            axis_row[0].set_ylabel(r"nuisance parameter $z/\pi$")
        for axis in axes[-1]:
            axis.set_xlabel(_RATIO_LABEL)
        methods = list(dict.fromkeys(panel.method for row in panels for panel in row))
        handles = [_handle("truth"), *(_handle(method) for method in methods), _truth_handle()]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def _draw_panel(axis: Axes, panel: ContourPanel, scale: float) -> None:
    for scans, method in ((panel.exact, "truth"), (panel.scans, panel.method)):
        style = METHOD_STYLES[method]
        for scan in scans:
            nll = np.nan_to_num(scan.nll.numpy() * scale, posinf=1e3)
            axis.contour(
                scan.grid.signal_ratios.numpy(),
                scan.grid.nuisances.numpy() / math.pi,
                nll.T,
                levels=CONTOUR_LEVELS,
                colors=style.color,
                linestyles="-" if method == "truth" else style.linestyle,
                linewidths=(1.3, 0.9) if method == "truth" else (1.6, 1.1),
            )
    ratios, nuisances = np.array(panel.truths).T
    axis.plot(ratios, nuisances / math.pi, "+", color=NEUTRAL_COLOR, markersize=6, markeredgewidth=1.2)
    axis.set_title(panel.title)


def _handle(method: str) -> Line2D:
    style = METHOD_STYLES[method]
    linestyle: Any = style.linestyle
    return Line2D([], [], color=style.color, linestyle=linestyle, label=style.label)


def _truth_handle() -> Line2D:
    return Line2D([], [], color=NEUTRAL_COLOR, marker="+", linestyle="", label="true parameters")


def plot_interval_construction(
    profile: Profile, fit: QuarticFit, intervals: Mapping[str, Intervals], *, truth: float
) -> Figure:
    r"""How a confidence interval is built from a profile: points, quartic, threshold, edges.

    Args:
        profile: profile of the signal ratio, one set.
        fit: quartic fitted to it.
        intervals: intervals to mark, by name, in the order of the line styles solid and dotted.
        truth: true signal ratio.

    Returns:
        The figure; the vertical axis is :math:`-2\log\lambda`.
    """
    values = profile.parameter_values
    # The quartic is drawn where it was fitted and a little beyond.
    excess = 2 * (profile.nll - profile.nll.min())
    near = excess < 5
    smallest = fit.nll(fit.best.unsqueeze(-1)).squeeze()
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.55))
        axis = figure.subplots()
        axis.plot(
            values[near], excess[near], "o", color=TRUTH_COLOR, markersize=2.5, label="profile on the grid"
        )
        axis.plot(
            values[near],
            2 * (fit.nll(values[near]) - smallest),
            color=NEUTRAL_COLOR,
            linewidth=1.2,
            label="quartic fit",
        )
        axis.axhline(1.0, color=NEUTRAL_COLOR, linestyle="--", linewidth=1.0, label=r"$-2\log\lambda=1$")
        looks = ((NEUTRAL_COLOR, "-"), (TRUTH_COLOR, ":"))
        for (name, interval), (color, style) in zip(intervals.items(), looks, strict=False):
            for number, edge in enumerate((float(interval.lower), float(interval.upper))):
                axis.axvline(
                    edge, color=color, linestyle=style, linewidth=2.0, label=name if number == 0 else None
                )
        axis.axvline(truth, color=TRUTH_COLOR, linewidth=0.8, linestyle="-.", label="true value")
        axis.set(xlabel=_RATIO_LABEL, ylabel=r"$-2\log\lambda$", ylim=(0, 5))
        figure.legend(loc="outside upper center", ncols=3)
    return figure
