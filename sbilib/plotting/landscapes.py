"""Figures of analyses with one or two free parameters: stacked yields, and losses as colored maps.

>>> import numpy as np
>>> axis = np.linspace(-1.0, 1.0, 5)
>>> bowl = LossMap("bowl", axis[:, None] ** 2 + axis**2)
>>> len(plot_landscapes([bowl], axis, axis, x_label="$u$", y_label="$d$").axes)
2
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from sbilib.errors import DataError, ParameterError
from sbilib.plotting.style import (
    BACKGROUND_COLOR,
    SIGNAL_COLOR,
    TRUTH_COLOR,
    figure_size,
    style_context,
)

__all__ = ["LossMap", "StackedYield", "plot_landscapes", "plot_stacked_yields"]


class LossMap(NamedTuple):
    """A loss over two parameters."""

    title: str
    """Title of the panel."""
    values: ArrayLike
    """Loss, ``(n_y, n_x)``; rows belong to the vertical axis."""
    paths: Sequence[ArrayLike] = ()
    """Paths of descents to draw on top, each ``(n_steps, 2)``."""


class StackedYield(NamedTuple):
    """Signal on top of background in one bin."""

    label: str
    """Below the bar, for instance the value of a parameter."""
    signal: float
    """Expected signal events."""
    background: float
    """Expected background events."""
    uncertainty: float
    """Standard deviation of the background in events."""


def plot_landscapes(
    maps: Sequence[LossMap],
    x: ArrayLike,
    y: ArrayLike,
    *,
    x_label: str,
    y_label: str,
    target: tuple[float, float] | None = None,
    columns: int = 3,
) -> Figure:
    """Colored maps of losses over the same two parameters, each with its own scale of color.

    Args:
        maps: the panels, filled row by row.
        x: values of the first parameter, ``(n_x,)``, evenly spaced.
        y: values of the second parameter, ``(n_y,)``, evenly spaced.
        x_label: name and unit of the first parameter.
        y_label: name and unit of the second parameter.
        target: a place to mark with a cross.
        columns: panels in a row at most.

    Returns:
        The figure, unknown to pyplot.

    Raises:
        ParameterError: if there is no map or no column.
        DataError: if a map does not fit the axes, or a path is not a list of points.
    """
    if not maps or columns < 1:
        raise ParameterError(f"plot_landscapes needs a map and a column, got {len(maps)} and {columns}")
    columns = min(columns, len(maps))
    rows = -(-len(maps) // columns)
    across, along = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.8 * rows / columns), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for number, axis in enumerate(axes.ravel()):
            if number >= len(maps):
                axis.set_visible(False)
                continue
            _draw_map(figure, axis, maps[number], across, along)
            axis.set(xlim=(across[0], across[-1]), ylim=(along[0], along[-1]))
            if target is not None:
                axis.plot(*target, marker="+", markersize=10, markeredgewidth=2, color=SIGNAL_COLOR)
            if number + columns >= len(maps):
                axis.set_xlabel(x_label)
                axis.tick_params(labelbottom=True)
            if number % columns == 0:
                axis.set_ylabel(y_label)
    return figure


def _draw_map(
    figure: Figure, axis: Axes, drawn: LossMap, x: NDArray[np.float64], y: NDArray[np.float64]
) -> None:
    values = np.asarray(drawn.values, dtype=float)
    if values.shape != (len(y), len(x)):
        raise DataError(
            f"map {drawn.title!r} needs values of shape {(len(y), len(x))}, got {values.shape}; "
            "rows belong to the vertical axis"
        )
    image = axis.pcolormesh(x, y, values, cmap="cividis", shading="nearest", rasterized=True)
    for path in drawn.paths:
        points = np.asarray(path, dtype=float)
        if points.ndim != 2 or points.shape[1] != 2:
            raise DataError(
                f"a path of map {drawn.title!r} needs points of shape (n, 2), got {points.shape}; "
                "pass one point a step"
            )
        axis.plot(points[:, 0], points[:, 1], color="white", linewidth=1.2)
        axis.plot(
            *points[-1],
            marker="o",
            markersize=5,
            color="white",
            markeredgecolor=TRUTH_COLOR,
            linestyle="none",
        )
    axis.set(title=drawn.title, aspect="equal")
    bar = figure.colorbar(image, ax=axis, fraction=0.05, pad=0.03, shrink=0.9)
    bar.ax.tick_params(labelsize=7)
    bar.formatter.set_powerlimits((-2, 3))  # type: ignore[attr-defined]


def plot_stacked_yields(bars: Sequence[StackedYield], *, x_label: str = "", width: float = 0.7) -> Figure:
    """Bars of signal stacked on background, with the uncertainty of the background as a hatched box.

    Args:
        bars: from left to right.
        x_label: what the labels of the bars are.
        width: width of the figure over the width of the text.

    Returns:
        The figure, unknown to pyplot.

    Raises:
        ParameterError: if there is no bar.
    """
    if not bars:
        raise ParameterError("plot_stacked_yields needs a bar, got none; pass StackedYield objects")
    places = np.arange(len(bars))
    signal, background, spread = (
        np.array([getattr(bar, name) for bar in bars]) for name in ("signal", "background", "uncertainty")
    )
    with style_context():
        figure = Figure(figsize=figure_size(width, aspect=0.65))
        axis = figure.subplots()
        axis.bar(places, background, 0.6, color=BACKGROUND_COLOR, label="background")
        axis.bar(places, signal, 0.6, bottom=background, color=SIGNAL_COLOR, label="signal")
        axis.bar(
            places, 2 * spread, 0.6, bottom=background - spread, facecolor="none", edgecolor=TRUTH_COLOR,
            linewidth=0.8, hatch="////", label="uncertainty of the background",
        )  # fmt: skip
        axis.set_xticks(places, [bar.label for bar in bars])
        axis.set(
            xlabel=x_label, ylabel="expected events", ylim=(0, 1.45 * float((signal + background).max()))
        )
        axis.legend(loc="upper right")
    return figure
