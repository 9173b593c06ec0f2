"""Figure of an error over bandwidth and number of events.

>>> import numpy as np
>>> points = MapPoints("best", [10, 100], [0.5, 0.3])
>>> figure = plot_error_map([10, 100], [0.1, 0.3, 0.5], np.full((2, 3), 0.2), [points], "error")
>>> len(figure.axes)
2
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from numpy.typing import ArrayLike

from sbilib.errors import DataError
from sbilib.plotting.style import SIGNAL_COLOR, figure_size, style_context

__all__ = ["MapPoints", "plot_error_map"]


class MapPoints(NamedTuple):
    """Points or a line on the map."""

    label: str
    """Name in the legend."""
    n_events: ArrayLike
    """Numbers of events, ``(n,)``."""
    bandwidths: ArrayLike
    """Bandwidths, ``(n,)``."""
    errors: ArrayLike | None = None
    """Half lengths of error bars of the bandwidths, ``(n,)``."""
    color: str = SIGNAL_COLOR
    """Hexadecimal color."""
    marker: str = "o"
    """Matplotlib marker; empty for a line."""


def plot_error_map(
    n_events: ArrayLike, bandwidths: ArrayLike, errors: ArrayLike, points: Sequence[MapPoints], label: str
) -> Figure:
    """Shades of the error over bandwidth and number of events, both logarithmic, and points on top.

    Args:
        n_events: numbers of events, increasing, ``(n_rows,)``.
        bandwidths: increasing, ``(n_columns,)``.
        errors: positive, ``(n_rows, n_columns)``.
        points: drawn on the map.
        label: of the color bar.

    Raises:
        DataError: if the errors do not fit the axes.
    """
    rows, columns, values = (np.asarray(each, dtype=float) for each in (n_events, bandwidths, errors))
    if values.shape != (len(rows), len(columns)):
        raise DataError(
            f"errors must have shape {(len(rows), len(columns))}, got {values.shape}; rows belong to n_events"
        )
    with style_context():
        figure = Figure(figsize=figure_size(0.85, aspect=0.68))
        axis = figure.subplots()
        shades = axis.pcolormesh(columns, rows, values, norm=LogNorm(), cmap="cividis")
        for each in points:
            axis.errorbar(
                np.asarray(each.bandwidths, dtype=float),
                np.asarray(each.n_events, dtype=float),
                xerr=None if each.errors is None else np.asarray(each.errors, dtype=float),
                color=each.color,
                marker=each.marker or "none",
                linestyle="none" if each.marker else "-",
                label=each.label,
                capsize=2,
            )
        axis.set(xscale="log", yscale="log", xlabel="bandwidth", ylabel="number of events")
        axis.set(xlim=(columns[0], columns[-1]), ylim=(rows[0] / 1.3, rows[-1] * 1.3))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        bar = figure.colorbar(shades, ax=axis, label=label)
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:g}"))
        bar.ax.yaxis.set_minor_formatter(NullFormatter())
        if points:
            axis.legend(loc="upper right", frameon=True, framealpha=0.9, edgecolor="none")
    return figure
