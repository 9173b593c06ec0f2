"""Figures of optimization: paths on a surface, and the graph of a calculation.

>>> import numpy as np
>>> axis = np.linspace(-1.0, 1.0, 5)
>>> surface = Surface("bowl", "$x$", "$y$", axis, axis, axis[:, None] ** 2 + axis**2)
>>> len(plot_paths([(surface, [Path2D("descent", np.array([[1.0, 1.0], [0.0, 0.0]]))])]).axes)
1
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from sbilib.errors import DataError, ParameterError
from sbilib.plotting.style import NEUTRAL_COLOR, SERIES_COLORS, TRUTH_COLOR, figure_size, style_context

__all__ = ["GraphNode", "Path2D", "Surface", "plot_graph", "plot_paths"]


class Surface(NamedTuple):
    """Values of a loss on a grid of two parameters."""

    title: str
    """Title of the panel."""
    x_label: str
    """Name of the first parameter, horizontal."""
    y_label: str
    """Name of the second parameter, vertical."""
    x: ArrayLike
    """Values of the first parameter, ``(n_x,)``."""
    y: ArrayLike
    """Values of the second parameter, ``(n_y,)``."""
    values: ArrayLike
    """Loss, ``(n_y, n_x)``."""
    minimum: tuple[float, float] | None = None
    """Position of the minimum, to mark it by a star."""
    levels: ArrayLike | int = 12
    """Contour levels, or their number on a square-root scale above the smallest value."""


class Path2D(NamedTuple):
    """Steps of an optimizer in two parameters."""

    label: str
    """Name in the legend; empty for none."""
    points: ArrayLike
    """Positions in the order of the steps, ``(n_steps + 1, 2)``."""
    color: str = SERIES_COLORS[1]
    """Hexadecimal color."""
    marker: str = "o"
    """Marker of each step."""
    linestyle: str = "-"
    """Matplotlib line style."""


def plot_paths(
    panels: Sequence[tuple[Surface, Sequence[Path2D]]], *, columns: int = 2, height: float = 0.42
) -> Figure:
    """Paths of optimizers on contours of the loss; start and end of the visible range stay fixed.

    Args:
        panels: surfaces, each with its paths.
        columns: panels in a row at most.
        height: height of a row over the width of the text.

    Returns:
        The figure, unknown to pyplot.

    Raises:
        ParameterError: if there is no panel.
        DataError: if a surface does not fit its axes, or a path is not a list of points.
    """
    if not panels or columns < 1:
        raise ParameterError(
            f"plot_paths needs a panel and a column, got {len(panels)} panels and {columns} columns"
        )
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    with style_context():
        figure = Figure(figsize=figure_size(aspect=height * rows))
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        for axis, (surface, paths) in zip(axes, panels, strict=False):
            _draw_surface(axis, surface)
            for path in paths:
                _draw_path(axis, path)
            if any(path.label for path in paths):
                axis.legend(loc="best", fontsize=8, frameon=True, framealpha=0.85, edgecolor="none")
    return figure


def _draw_surface(axis: Axes, surface: Surface) -> None:
    x, y = np.asarray(surface.x, dtype=float), np.asarray(surface.y, dtype=float)
    values = np.asarray(surface.values, dtype=float)
    if values.shape != (len(y), len(x)):
        raise DataError(
            f"surface {surface.title!r} needs values of shape {(len(y), len(x))}, got {values.shape}; "
            "rows belong to the vertical axis"
        )
    levels = surface.levels
    if isinstance(levels, int):
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        # Equal steps of the square root: lines at equal distances in a quadratic bowl.
        levels = low + (high - low) * np.linspace(0.03, 1.0, levels) ** 2
    axis.contour(x, y, values, np.asarray(levels), colors=NEUTRAL_COLOR, linewidths=0.6, alpha=0.8)
    if surface.minimum is not None:
        axis.plot(*surface.minimum, marker="*", markersize=10, color=TRUTH_COLOR, linestyle="none")
    axis.set(title=surface.title, xlabel=surface.x_label, ylabel=surface.y_label)
    axis.set(xlim=(x.min(), x.max()), ylim=(y.min(), y.max()))


def _draw_path(axis: Axes, path: Path2D) -> None:
    points = np.asarray(path.points, dtype=float)
    if points.ndim != 2 or points.shape[1] != 2:
        raise DataError(
            f"path {path.label!r} needs points of shape (n, 2), got {points.shape}; pass one point a step"
        )
    axis.plot(
        points[:, 0],
        points[:, 1],
        color=path.color,
        linestyle=path.linestyle,
        linewidth=1.2,
        marker=path.marker,
        markersize=3.0,
        label=path.label or None,
    )


class GraphNode(NamedTuple):
    """One number of a calculation."""

    label: str
    """What it is, for instance an operation or the name of an input."""
    parents: Sequence[str]
    """Keys of the numbers it was computed from."""
    note: str = ""
    """A second line below the label, for instance the value."""
    place: tuple[float, float] | None = None
    """Column and height of the box; by default the column after the last of the parents."""


def plot_graph(nodes: Mapping[str, GraphNode], *, height: float = 0.4) -> Figure:
    """Graph of a calculation from inputs on the left to the result on the right.

    Args:
        nodes: numbers by key, each after its parents.
        height: height of the figure over the width of the text.

    Returns:
        The figure, unknown to pyplot.

    Raises:
        DataError: if a node names a parent that does not come before it.
    """
    places = _layout(nodes)
    with style_context():
        figure = Figure(figsize=figure_size(aspect=height))
        axis = figure.subplots()
        axis.set_axis_off()
        for key, node in nodes.items():
            for parent in node.parents:
                axis.annotate(
                    "",
                    xy=tuple(places[key]),
                    xytext=tuple(places[parent]),
                    arrowprops={
                        "arrowstyle": "-|>", "color": NEUTRAL_COLOR, "shrinkA": 21, "shrinkB": 21,
                        "connectionstyle": "arc3,rad=0.03",
                    },
                )  # fmt: skip
        for key, node in nodes.items():
            color = SERIES_COLORS[1] if node.parents else TRUTH_COLOR
            axis.text(
                places[key][0],
                places[key][1],
                f"{node.label}\n{node.note}" if node.note else node.label,
                ha="center",
                va="center",
                fontsize=8,
                bbox={"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": color},
            )
        across = np.array(list(places.values()))
        axis.set_xlim(across[:, 0].min() - 0.5, across[:, 0].max() + 0.5)
        axis.set_ylim(across[:, 1].min() - 0.5, across[:, 1].max() + 0.5)
    return figure


def _layout(nodes: Mapping[str, GraphNode]) -> dict[str, NDArray[np.float64]]:
    """Column of a node: one after the last of its parents. Rows are spread evenly about the middle."""
    columns: dict[str, int] = {}
    for key, node in nodes.items():
        unknown = [parent for parent in node.parents if parent not in columns]
        if unknown:
            raise DataError(
                f"node {key!r} comes before its parent {unknown[0]!r}; list parents before children"
            )
        columns[key] = 1 + max((columns[parent] for parent in node.parents), default=-1)
    places: dict[str, NDArray[np.float64]] = {}
    for column in sorted(set(columns.values())):
        keys = [key for key, where in columns.items() if where == column]
        for row, key in enumerate(keys):
            places[key] = np.array(nodes[key].place or (float(column), (len(keys) - 1) / 2 - row))
    return places
