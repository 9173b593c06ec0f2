"""Figures of what features and rates are worth: widths beside coverages, information, and its ellipses.

Filled markers stand for fits with the number of events, open ones for fits of the shapes alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from sbilib.errors import DataError, ParameterError
from sbilib.plotting.style import (
    METHOD_STYLES,
    NEUTRAL_COLOR,
    SERIES_COLORS,
    TRUTH_COLOR,
    figure_size,
    style_context,
)

__all__ = ["plot_ellipses", "plot_feature_path", "plot_precision"]

_NAMES = {"mu": r"signal ratio $\mu$", "z": r"energy scale $z$"}
_SYMBOLS = {"mu": r"$\mu$", "z": "$z$"}
_NOMINAL = 0.683
_OFFSETS = {("classifier", "shape"): -0.21, ("classifier", "extended"): -0.07, ("flow", "shape"): 0.07}
_OFFSETS[("flow", "extended")] = 0.21


def plot_precision(table: pd.DataFrame, *, threshold: str) -> Figure:
    """Mean widths in the upper row, coverages in the lower, by number of features.

    Args:
        table: rows of `precision_table`; those with the scale profiled are shown.
        threshold: which policy.

    Raises:
        DataError: if there are no such rows.
    """
    rows = table[(table["threshold"] == threshold) & (table["scale"] == "profiled")]
    if rows.empty:
        raise DataError(f"no profiled fits with the threshold {threshold!r} in the table; run them first")
    sets = sorted(int(number) for number in rows["n_features"].unique())
    with style_context():
        figure = Figure(figsize=figure_size(1.0, aspect=0.68))
        axes = figure.subplots(2, 2, sharex=True, height_ratios=(1.35, 1))
        for column, parameter in enumerate(("mu", "z")):
            part = rows[rows["parameter"] == parameter]
            _draw_series(axes[0, column], part, sets, "width")
            _draw_series(axes[1, column], part, sets, "coverage")
            axes[0, column].set_title(_NAMES[parameter])
            axes[0, column].set_ylim(0.0, 1.06 * axes[0, column].get_ylim()[1])
            axes[1, column].axhline(_NOMINAL, color=TRUTH_COLOR, linewidth=0.8)
            axes[1, column].axhspan(0.66, 0.70, color=NEUTRAL_COLOR, alpha=0.2, linewidth=0)
            axes[1, column].set_xticks(range(len(sets)), [str(number) for number in sets])
            axes[1, column].set_xlim(-0.5, len(sets) - 0.5)
            axes[1, column].set_xlabel("number of features")
        axes[0, 0].set_ylabel("mean width of 68.3% intervals")
        axes[1, 0].set_ylabel("coverage")
        figure.legend(handles=_legend(rows), loc="outside lower center", ncols=2)
    return figure


def _draw_series(axes: Axes, rows: pd.DataFrame, sets: Sequence[int], value: str) -> None:
    for (method, likelihood), part in rows.groupby(["method", "likelihood"], sort=False):
        look = METHOD_STYLES[str(method)]
        place = [sets.index(int(n)) + _OFFSETS[str(method), str(likelihood)] for n in part["n_features"]]
        filled = look.color if likelihood == "extended" else "white"
        low, high = part[f"{value}_low"].to_numpy(float), part[f"{value}_high"].to_numpy(float)
        axes.vlines(place, low, high, color=look.color, alpha=0.3, linewidth=5)
        axes.errorbar(
            place,
            part[value].to_numpy(float),
            yerr=part[f"{value}_error"].to_numpy(float),
            color=look.color,
            marker=look.marker,
            markerfacecolor=filled,
            markersize=6,
            linestyle="",
            linewidth=1.2,
        )


def _legend(rows: pd.DataFrame) -> list[Line2D]:
    handles = []
    names = {"shape": "shapes alone", "extended": "shapes and number of events"}
    for method in rows["method"].unique():
        look = METHOD_STYLES[method]
        for likelihood, name in names.items():
            filled = look.color if likelihood == "extended" else "white"
            handles.append(
                Line2D([], [], color=look.color, marker=look.marker, markerfacecolor=filled, linestyle="",
                       markersize=6, label=f"{look.label}, {name}")
            )  # fmt: skip
    return handles


def plot_feature_path(path: pd.DataFrame, start: Mapping[str, float], full: Mapping[str, float]) -> Figure:
    """Expected widths as one feature after the other is added.

    Args:
        path: rows with ``feature`` and the widths ``mu`` and ``z`` after it is added, in order.
        start: widths ``mu`` and ``z`` of the features at the start.
        full: widths of all features, a dotted line.

    Raises:
        ParameterError: if nothing was added.
    """
    if path.empty:
        raise ParameterError("the path has no features; add at least one to the start")
    labels = ["published pair", *(f"+ {name}" for name in path["feature"])]
    with style_context():
        figure = Figure(figsize=figure_size(1.0, aspect=0.42))
        panels = figure.subplots(1, 2, sharey=True)
        for axes, name, color in zip(panels, ("mu", "z"), SERIES_COLORS, strict=False):
            widths = [start[name], *path[name]]
            axes.plot(widths, range(len(labels)), color=color, marker="o")
            axes.axvline(full[name], color=NEUTRAL_COLOR, linestyle=":")
            # Widths of fewer features lie right of the line, so its left is free.
            axes.annotate(
                "all 28",
                (full[name], len(labels) - 1),
                xytext=(-5, 0),
                textcoords="offset points",
                color=NEUTRAL_COLOR,
                ha="right",
                va="center",
                fontsize=9,
            )
            axes.set_xlim(0, 1.08 * max(widths))
            axes.set_xlabel(f"expected width of {_SYMBOLS[name]}")
        panels[0].set_yticks(range(len(labels)), labels)
        panels[0].invert_yaxis()
    return figure


def plot_ellipses(
    information: Mapping[str, ArrayLike], *, center: tuple[float, float], rate: ArrayLike | None = None
) -> Figure:
    r"""Where :math:`\Delta\theta^T I\, \Delta\theta = 1`, whose shadows are the 68.3% intervals.

    Args:
        information: matrices ``(2, 2)`` of signal ratio and energy scale, by their name in the legend.
        center: true signal ratio and scale.
        rate: singular information of the number of events, drawn as a band.

    Raises:
        ParameterError: if there is no matrix.
    """
    if not information:
        raise ParameterError("no information to draw; pass at least one matrix")
    with style_context():
        figure = Figure(figsize=figure_size(1.0, aspect=0.52))
        axes = figure.subplots()
        angle = np.linspace(0, 2 * np.pi, 200)
        circle = np.stack((np.cos(angle), np.sin(angle)))
        for (label, matrix), color, line in zip(
            information.items(), SERIES_COLORS, ("-", "--", "-.", ":", "-", "--"), strict=False
        ):
            root = np.linalg.inv(np.linalg.cholesky(np.asarray(matrix, dtype=float))).T
            points = root @ circle
            axes.plot(center[0] + points[0], center[1] + points[1], color=color, linestyle=line, label=label)
        if rate is not None:
            _draw_band(axes, np.asarray(rate, dtype=float), center)
        axes.plot(*center, marker="+", color=TRUTH_COLOR, markersize=9)
        axes.set_xlabel(_NAMES["mu"])
        axes.set_ylabel(_NAMES["z"])
        figure.legend(loc="outside right center")
    return figure


def _draw_band(axes: Axes, rate: np.ndarray, center: tuple[float, float]) -> None:
    """All parameters whose expected number of events is within one standard deviation."""
    limits = axes.get_xlim(), axes.get_ylim()
    values, vectors = np.linalg.eigh(rate)
    slope = vectors[:, -1] * np.sqrt(values[-1])
    mu = np.linspace(*limits[0], 50)
    edges = [center[1] + (side - slope[0] * (mu - center[0])) / slope[1] for side in (-1.0, 1.0)]
    low, high = np.minimum(*edges), np.maximum(*edges)
    axes.fill_between(mu, low, high, color=NEUTRAL_COLOR, alpha=0.2, linewidth=0, label="number of events")
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])
