"""Panels of curves with points, error bars and bands: the plain figure of the theory pages.

>>> line = Curve("square", [0.0, 1.0, 2.0], [0.0, 1.0, 4.0])
>>> len(plot_curves([CurvePanel("a parabola", "$x$", "$x^2$", [line])]).axes)
1
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import ArrayLike, NDArray

from sbilib.errors import DataError, ParameterError
from sbilib.plotting.style import NEUTRAL_COLOR, SERIES_COLORS, figure_size, style_context

__all__ = ["Band", "Curve", "CurvePanel", "plot_curves"]


class Curve(NamedTuple):
    """One line, or points with error bars, by the style given."""

    label: str
    """Name in the legend; empty for none."""
    x: ArrayLike
    """Horizontal positions, ``(n,)``."""
    y: ArrayLike
    """Heights, ``(n,)``; NaN leaves a gap."""
    color: str = SERIES_COLORS[1]
    """Hexadecimal color."""
    linestyle: str = "-"
    """Matplotlib line style; empty for points without a line."""
    marker: str = ""
    """Matplotlib marker; empty for none."""
    error: ArrayLike | None = None
    """Half lengths of error bars, ``(n,)``."""
    steps: bool = False
    """Draw as a histogram: ``x`` then holds the n + 1 edges of the bins."""


class Band(NamedTuple):
    """A filled region between two curves."""

    label: str
    """Name in the legend; empty for none."""
    x: ArrayLike
    """Horizontal positions, ``(n,)``."""
    low: ArrayLike
    """Lower edge, ``(n,)``."""
    high: ArrayLike
    """Upper edge, ``(n,)``."""
    color: str = NEUTRAL_COLOR
    """Hexadecimal color."""
    alpha: float = 0.25
    """Opacity."""


class CurvePanel(NamedTuple):
    """One panel: its labels, curves, bands and guides."""

    title: str
    """Title; empty for none."""
    x_label: str
    """Name and unit of the horizontal axis."""
    y_label: str
    """Name and unit of the vertical axis."""
    curves: Sequence[Curve]
    """What is drawn, in the order of the legend."""
    bands: Sequence[Band] = ()
    """Regions behind the curves."""
    vertical: Sequence[float] = ()
    """Positions of dotted vertical guides."""
    horizontal: Sequence[float] = ()
    """Heights of dotted horizontal guides."""
    log: str = ""
    """Logarithmic axes: ``""``, ``"x"``, ``"y"`` or ``"xy"``."""
    x_limits: tuple[float, float] | None = None
    """Range of the horizontal axis."""
    y_limits: tuple[float, float] | None = None
    """Range of the vertical axis."""
    x_ticks: Sequence[float] | None = None
    """Positions of the labels of the horizontal axis, for instance on a short logarithmic one."""
    legend: str = "best"
    """Place of the legend; empty for none."""


def plot_curves(
    panels: Sequence[CurvePanel], *, columns: int = 2, height: float = 0.42, width: float = 1.0
) -> Figure:
    """Draw panels of curves in a grid.

    Args:
        panels: the panels, filled row by row.
        columns: panels in a row at most.
        height: height of a row over the width of the text, at most 3.
        width: width of the figure over the width of the text.

    Returns:
        The figure, unknown to pyplot.

    Raises:
        ParameterError: if there is no panel or no column, or a panel has unknown logarithmic axes.
        DataError: if arrays of a curve or band differ in length; the message names panel and curve.
    """
    if not panels or columns < 1:
        raise ParameterError(
            f"plot_curves needs a panel and a column, got {len(panels)} panels and {columns} columns"
        )
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    with style_context():
        figure = Figure(figsize=figure_size(width, aspect=height * rows / width))
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        for axis, panel in zip(axes, panels, strict=False):
            _draw_panel(axis, panel)
    return figure


def _draw_panel(axis: Axes, panel: CurvePanel) -> None:
    if panel.log not in ("", "x", "y", "xy"):
        raise ParameterError(f"log must be '', 'x', 'y' or 'xy', got {panel.log!r} in panel {panel.title!r}")
    for band in panel.bands:
        x, low, high = _arrays(panel, band.label, band.x, band.low, band.high)
        axis.fill_between(
            x, low, high, color=band.color, alpha=band.alpha, linewidth=0, label=band.label or None
        )
    for curve in panel.curves:
        _draw_curve(axis, panel, curve)
    guide: dict[str, Any] = {"color": NEUTRAL_COLOR, "linewidth": 0.9, "linestyle": ":", "zorder": 0}
    for position in panel.vertical:
        axis.axvline(position, **guide)
    for position in panel.horizontal:
        axis.axhline(position, **guide)
    if "x" in panel.log:
        axis.set_xscale("log")
    if "y" in panel.log:
        axis.set_yscale("log")
    if panel.x_ticks is not None:
        axis.set_xticks(list(panel.x_ticks), [f"{tick:g}" for tick in panel.x_ticks])
        axis.xaxis.set_minor_locator(NullLocator())
    axis.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
    if panel.x_limits is not None:
        axis.set_xlim(panel.x_limits)
    if panel.y_limits is not None:
        axis.set_ylim(panel.y_limits)
    if panel.legend and axis.get_legend_handles_labels()[1]:
        place: Any = panel.legend
        axis.legend(loc=place)


def _draw_curve(axis: Axes, panel: CurvePanel, curve: Curve) -> None:
    look: dict[str, Any] = {"color": curve.color, "label": curve.label or None}
    if curve.steps:
        heights = np.asarray(curve.y, dtype=float)
        edges = np.asarray(curve.x, dtype=float)
        if len(edges) != len(heights) + 1:
            raise DataError(
                f"curve {curve.label!r} of panel {panel.title!r} needs {len(heights) + 1} edges "
                f"for {len(heights)} bins, got {len(edges)}; pass one edge more than bins"
            )
        axis.stairs(heights, edges, linestyle=curve.linestyle, linewidth=1.6, baseline=None, **look)
        return
    look |= {"linestyle": curve.linestyle or "none", "marker": curve.marker or "none"}
    if curve.error is None:
        x, y = _arrays(panel, curve.label, curve.x, curve.y)
        axis.plot(x, y, **look)
    else:
        x, y, error = _arrays(panel, curve.label, curve.x, curve.y, curve.error)
        axis.errorbar(x, y, error, capsize=2, elinewidth=1.0, **look)


def _arrays(panel: CurvePanel, label: str, *values: ArrayLike) -> list[NDArray[np.float64]]:
    arrays = [np.asarray(value, dtype=float) for value in values]
    if any(array.ndim != 1 or len(array) != len(arrays[0]) for array in arrays):
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise DataError(
            f"curve {label!r} of panel {panel.title!r} needs arrays of one length, got {shapes}; "
            "pass as many heights as positions"
        )
    return arrays
