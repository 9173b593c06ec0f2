"""Figures of the page on autoregressive models: patterns of matrices, and densities in the plane.

>>> import numpy as np
>>> len(plot_matrices([Matrix("mask", np.tril(np.ones((3, 3))), "from", "to")]).axes)
1
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from sbilib.errors import DataError, ParameterError, check_count, check_range
from sbilib.plotting.style import figure_size, style_context

__all__ = ["Matrix", "plot_density_maps", "plot_matrices"]


class Matrix(NamedTuple):
    """A matrix of which only the places of its zeros matter."""

    title: str
    """Title of the panel."""
    values: ArrayLike
    """Entries, ``(rows, columns)``."""
    x_label: str
    """What the columns stand for."""
    y_label: str
    """What the rows stand for."""


def plot_matrices(matrices: Sequence[Matrix], *, height: float = 0.36) -> Figure:
    """Matrices side by side, dark where an entry is not zero.

    Args:
        matrices: the panels, from left to right; rows and columns are counted from 1.
        height: height of the figure over the width of the text, at most 3.

    Returns:
        The figure, unknown to pyplot.

    Raises:
        ParameterError: if there is no matrix.
        DataError: if values are not a matrix of at least one entry.
    """
    if not matrices:
        raise ParameterError("plot_matrices needs a matrix, got none; pass at least one")
    with style_context():
        figure = Figure(figsize=figure_size(aspect=height))
        for axis, matrix in zip(figure.subplots(1, len(matrices), squeeze=False)[0], matrices, strict=True):
            values = np.asarray(matrix.values)
            if values.ndim != 2 or values.size == 0:
                raise DataError(
                    f"matrix {matrix.title!r} must have shape (rows, columns), got {values.shape}; "
                    "pass one row for each output"
                )
            rows, columns = values.shape
            edges = np.arange(columns + 1) + 0.5, np.arange(rows + 1) + 0.5
            axis.pcolormesh(
                *edges, values != 0, cmap="Greys", vmin=0, vmax=1.4, edgecolors="#B0B0B0", linewidth=0.4
            )
            axis.set(title=matrix.title, xlabel=matrix.x_label, ylabel=matrix.y_label, aspect="equal")
            axis.set_ylim(rows + 0.5, 0.5)
            for side in (axis.xaxis, axis.yaxis):
                side.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 4, 10]))
    return figure


def plot_density_maps(
    maps: Mapping[str, ArrayLike],
    x: ArrayLike,
    y: ArrayLike,
    *,
    x_label: str,
    y_label: str,
    decades: float = 5.0,
    columns: int = 3,
) -> Figure:
    """Densities over the same plane with one logarithmic scale of color, that of the first map.

    Args:
        maps: densities ``(n_y, n_x)`` by title, rows along the vertical axis; the panels, row by row.
        x: horizontal positions, ``(n_x,)``, evenly spaced.
        y: vertical positions, ``(n_y,)``, evenly spaced.
        x_label: name and unit of the horizontal axis.
        y_label: name and unit of the vertical axis.
        decades: what the scale spans below the largest density of the first map; less has its lowest color.
        columns: panels in a row at most.

    Returns:
        The figure, unknown to pyplot; the axes of the scale come last.

    Raises:
        ParameterError: if there is no map or a number is out of range.
        DataError: if a map does not fit the axes, or the first one has no positive density.
    """
    check_range("decades", decades, low=0.0, include_low=False)
    check_count("columns", columns, low=1)
    if not maps:
        raise ParameterError("plot_density_maps needs a map, got none; pass at least one")
    across, along = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    values = {title: np.asarray(each, dtype=float) for title, each in maps.items()}
    for title, each in values.items():
        if each.shape != (len(along), len(across)):
            raise DataError(
                f"map {title!r} needs values of shape {(len(along), len(across))}, got {each.shape}; "
                "rows belong to the vertical axis"
            )
    highest = float(next(iter(values.values())).max())
    if not highest > 0:
        raise DataError(f"the first map must have a positive density, its largest value is {highest}")
    lowest = highest * 10.0**-decades
    columns = min(columns, len(values))
    rows = -(-len(values) // columns)
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.9 * rows / columns))
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for axis in axes.ravel()[len(values) :]:
            axis.set_visible(False)
        for number, (title, each) in enumerate(values.items()):
            axis = axes.ravel()[number]
            mesh = axis.pcolormesh(
                across, along, each.clip(lowest, None), norm=LogNorm(lowest, highest), rasterized=True
            )
            axis.set_title(title)
            if number + columns >= len(values):
                axis.set_xlabel(x_label)
                axis.tick_params(labelbottom=True)
            if number % columns == 0:
                axis.set_ylabel(y_label)
        figure.colorbar(mesh, ax=axes, label="density", shrink=0.9)
    return figure
