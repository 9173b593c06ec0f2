"""Figures of ensembles: against their size, their errors taken apart, and intervals that allow for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator

from sbilib.plotting.coverage import NOMINAL_LEVEL
from sbilib.plotting.style import METHOD_STYLES, NEUTRAL_COLOR, TRUTH_COLOR, figure_size, style_context

__all__ = [
    "EnsembleCurves",
    "plot_ensemble_sizes",
    "plot_error_decomposition",
    "plot_mean_errors",
    "plot_widened_coverage",
]

_KINDS = {"mean_density": ("-", "full", 1.06), "mean_log_ratio": (":", "none", 0.94)}
_KIND_NAMES = {"mean_density": "mean density", "mean_log_ratio": "mean log ratio"}
_PARAMETERS = {"mu": r"\mu", "z": "z"}
_SINGLE = "single"


class EnsembleCurves(NamedTuple):
    """What one method gives in one case."""

    overlaps: pd.DataFrame
    """A row per sub-ensemble: ``kind``, ``size``, ``number`` and ``total_overlap``."""
    coverage: pd.DataFrame
    """A row per ``parameter``, ``kind`` and ``size``: ``coverage`` and ``error``."""


def plot_ensemble_sizes(curves: Mapping[str, Mapping[str, EnsembleCurves]]) -> Figure:
    """Total overlap and coverage of both parameters against the number of members.

    Args:
        curves: by name of the case and method (``"flow"``, ``"classifier"``).  Small dots are single
            sub-ensembles, markers their means; error bars are standard errors over sub-ensembles (overlap)
            or binomial ones.

    Returns:
        The figure, unknown to pyplot.
    """
    with style_context():
        figure = Figure(figsize=figure_size(aspect=1.05))
        axes = figure.subplots(3, len(curves), sharex=True, sharey="row", squeeze=False)
        for column, (case, methods) in enumerate(curves.items()):
            axes[0, column].set_title(f"{case} distance")
            for method, curve in methods.items():
                _draw_overlaps(axes[0, column], method, curve.overlaps)
                for row, parameter in enumerate(_PARAMETERS, start=1):
                    rows = curve.coverage[curve.coverage["parameter"] == parameter]
                    _draw_coverage(axes[row, column], method, rows)
            for axis in axes[1:, column]:
                axis.axhline(100 * NOMINAL_LEVEL, color=NEUTRAL_COLOR, linewidth=0.8, linestyle=":")
            _size_axis(axes[2, column])
        axes[0, 0].set_ylabel("total overlap")
        for row, symbol in enumerate(_PARAMETERS.values(), start=1):
            axes[row, 0].set_ylabel(rf"coverage of ${symbol}$ [%]")
        methods_seen = list(dict.fromkeys(method for methods in curves.values() for method in methods))
        _legend(figure, methods_seen, _KIND_NAMES)
    return figure


def _draw_overlaps(axis: Axes, method: str, overlaps: pd.DataFrame) -> None:
    style = METHOD_STYLES[method]
    for kind, (line, fill, place) in _KINDS.items():
        rows = overlaps[overlaps["kind"].isin([kind, _SINGLE])]
        grouped = rows.groupby("size")["total_overlap"]
        means, errors = grouped.mean(), grouped.sem()
        at = np.asarray(means.index, dtype=float) * place
        axis.plot(
            rows["size"] * place, rows["total_overlap"], ".", color=style.color, markersize=2.5, alpha=0.5
        )
        axis.errorbar(
            at,
            means,
            errors.fillna(0.0),
            color=style.color,
            marker=style.marker,
            linestyle=line,
            fillstyle=fill,
            linewidth=1.1,
            capsize=2,
        )


def _draw_coverage(axis: Axes, method: str, rows: pd.DataFrame) -> None:
    style = METHOD_STYLES[method]
    for kind, (line, fill, place) in _KINDS.items():
        chosen = rows[rows["kind"].isin([kind, _SINGLE])].sort_values("size")
        axis.errorbar(
            chosen["size"] * place,
            100 * chosen["coverage"],
            100 * chosen["error"],
            color=style.color,
            marker=style.marker,
            linestyle=line,
            fillstyle=fill,
            linewidth=1.1,
            capsize=2,
        )


def plot_error_decomposition(
    squares: Mapping[str, Mapping[str, pd.DataFrame]],
    fits: Mapping[str, Mapping[str, Mapping[str, Callable[[float], float]]]],
) -> Figure:
    """Root mean square shift of the best fit against the number of members, with its decomposition.

    Args:
        squares: by case and method, a row per ``parameter``, ``kind`` and ``size`` with ``rms`` in units of
            the half-width of exact intervals; rows whose ``rms`` is zero cannot be shown on the logarithmic
            axis.
        fits: by case, method and parameter, the expected ``rms`` as a function of the size.

    Returns:
        The figure, unknown to pyplot.
    """
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.85))
        axes = figure.subplots(2, len(squares), sharex=True, sharey="row", squeeze=False)
        for column, (case, methods) in enumerate(squares.items()):
            axes[0, column].set_title(f"{case} distance")
            for method, table in methods.items():
                for axis, parameter in zip(axes[:, column], _PARAMETERS, strict=True):
                    rows = table[(table["parameter"] == parameter) & (table["rms"] > 0)]
                    _draw_shifts(axis, method, rows, fits[case][method][parameter])
            for axis in axes[:, column]:
                _shift_axis(axis)
            _size_axis(axes[1, column])
        for axis, symbol in zip(axes[:, 0], _PARAMETERS.values(), strict=True):
            axis.set_ylabel(rf"rms shift of $\hat {symbol}$ [$\sigma$]")
        methods_seen = list(dict.fromkeys(method for methods in squares.values() for method in methods))
        _legend(figure, methods_seen, _KIND_NAMES)
    return figure


def _draw_shifts(axis: Axes, method: str, rows: pd.DataFrame, expected: Callable[[float], float]) -> None:
    style = METHOD_STYLES[method]
    for kind, (_, fill, place) in _KINDS.items():
        chosen = rows[rows["kind"].isin([kind, _SINGLE])].sort_values("size")
        axis.plot(
            chosen["size"] * place,
            chosen["rms"],
            color=style.color,
            marker=style.marker,
            linestyle="",
            fillstyle=fill,
        )
    if rows.empty:
        return
    fine = np.geomspace(rows["size"].min(), rows["size"].max(), 60)
    axis.plot(fine, [expected(size) for size in fine], color=style.color, linestyle="-", linewidth=1.0)


def plot_mean_errors(table: pd.DataFrame) -> Figure:
    """The true error of ensemble means beside what the spread of their members suggests.

    Args:
        table: a row per ``case``, ``parameter``, ``method`` and ``ensemble``, with ``true`` and, in all other
            columns, suggested errors; all in units of the half-width of exact intervals, NaN where there is
            none.

    Returns:
        The figure, unknown to pyplot; suggestions are open markers, the true error is a bar.
    """
    known = ["case", "parameter", "method", "ensemble", "true"]
    suggestions = [column for column in table.columns if column not in known]
    shapes = dict(zip(suggestions, "D>*Pv", strict=False))
    with style_context():
        cases = list(dict.fromkeys(table["case"]))
        figure = Figure(figsize=figure_size(aspect=0.95))
        axes = figure.subplots(len(cases), 2, sharex=True, sharey=True, squeeze=False)
        for axis_row, case in zip(axes, cases, strict=True):
            for axis, (parameter, symbol) in zip(axis_row, _PARAMETERS.items(), strict=True):
                rows = table[(table["case"] == case) & (table["parameter"] == parameter)]
                places = np.arange(len(rows))
                colors = [METHOD_STYLES[method].color for method in rows["method"]]
                axis.barh(places, rows["true"], color=colors, height=0.55, alpha=0.55)
                for name, shape in shapes.items():
                    axis.plot(
                        rows[name], places, shape, color=TRUTH_COLOR, markerfacecolor="white", markersize=5.5
                    )
                labels = [f"{row.ensemble}, {row.method}" for row in rows.itertuples()]
                axis.set_yticks(places, labels)
                axis.set_title(rf"${symbol}$, {case} distance")
        axes[0, 0].invert_yaxis()
        for axis in axes[-1]:
            axis.set_xlabel(r"error of the ensemble mean [$\sigma$]")
        handles = [
            Line2D([], [], color=TRUTH_COLOR, marker=shape, linestyle="", markerfacecolor="white", label=name)
            for name, shape in shapes.items()
        ]
        bar = Line2D([], [], color=NEUTRAL_COLOR, linewidth=7, alpha=0.55, label="true error")
        figure.legend(handles=[bar, *handles], loc="outside upper center", ncols=2)
    return figure


def plot_widened_coverage(table: pd.DataFrame) -> Figure:
    """Coverage before and after intervals were widened by the spread of the members.

    Args:
        table: a row per ``case``, ``parameter``, ``method`` (``"truth"`` for the exact likelihood, of size 0)
            and ``size``, with ``plain`` and ``widened`` coverage and the ``error`` of both.

    Returns:
        The figure, unknown to pyplot.
    """
    with style_context():
        cases = list(dict.fromkeys(table["case"]))
        figure = Figure(figsize=figure_size(aspect=0.85))
        axes = figure.subplots(2, len(cases), sharex=True, sharey=True, squeeze=False)
        groups = list(dict.fromkeys(zip(table["method"], table["size"], strict=True)))
        names = [METHOD_STYLES[method].label + (f", {size}" if size else "") for method, size in groups]
        for column, case in enumerate(cases):
            for axis, (parameter, symbol) in zip(axes[:, column], _PARAMETERS.items(), strict=True):
                rows = table[(table["case"] == case) & (table["parameter"] == parameter)]
                for place, (method, size) in enumerate(groups):
                    chosen = rows[(rows["method"] == method) & (rows["size"] == size)]
                    _draw_pair(axis, place, method, chosen)
                axis.axhline(100 * NOMINAL_LEVEL, color=NEUTRAL_COLOR, linewidth=0.8, linestyle=":")
                axis.set_title(rf"${symbol}$, {case} distance")
            axes[1, column].set_xticks(np.arange(len(groups)), names, rotation=40, ha="right")
        for axis in axes[:, 0]:
            axis.set_ylabel("coverage [%]")
        handles = [
            Line2D([], [], color=NEUTRAL_COLOR, marker="o", linestyle="", fillstyle="none", label="plain"),
            Line2D([], [], color=NEUTRAL_COLOR, marker="o", linestyle="", label="widened"),
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure


def _draw_pair(axis: Axes, place: int, method: str, rows: pd.DataFrame) -> None:
    style = METHOD_STYLES[method]
    for offset, column, fill in ((-0.13, "plain", "none"), (0.13, "widened", "full")):
        if method == "truth" and column == "widened":
            continue
        axis.errorbar(
            np.full(len(rows), place + offset),
            100 * rows[column],
            100 * rows["error"],
            color=style.color,
            marker=style.marker,
            linestyle="",
            fillstyle=fill,
            capsize=2,
        )


def _shift_axis(axis: Axes) -> None:
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_locator(NullLocator())


def _size_axis(axis: Axes) -> None:
    axis.set_xscale("log", base=2)
    ticks = [1, 2, 4, 8, 16, 32, 64]
    low, high = axis.get_xlim()
    shown = [tick for tick in ticks if low * 0.9 <= tick <= high * 1.1]
    axis.xaxis.set_major_locator(FixedLocator(shown))
    axis.set_xticks(shown, [str(tick) for tick in shown])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlabel("members of the ensemble")


def _legend(figure: Figure, methods: list[str], kinds: Mapping[str, str]) -> None:
    handles = [
        Line2D(
            [], [], color=METHOD_STYLES[m].color, marker=METHOD_STYLES[m].marker, label=METHOD_STYLES[m].label
        )
        for m in methods
    ]
    for kind, label in kinds.items():
        line, fill, _ = _KINDS[kind]
        handles.append(
            Line2D([], [], color=NEUTRAL_COLOR, marker="o", linestyle=line, fillstyle=fill, label=label)  # type: ignore[arg-type]
        )
    figure.legend(handles=handles, loc="outside upper center", ncols=4)
