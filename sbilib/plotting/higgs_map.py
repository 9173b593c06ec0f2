"""Figures of the known map of the energy scale, and of models that know it beside models that learn it."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from sbilib.plotting.style import (
    BACKGROUND_COLOR,
    METHOD_STYLES,
    NEUTRAL_COLOR,
    SIGNAL_COLOR,
    figure_size,
    style_context,
)

__all__ = ["plot_higgs_frame", "plot_map_against_data"]

_RATIO_TICKS = (0.2, 0.5, 1.0, 2.0, 5.0)
_NAMES = {"mu": r"\mu", "z": "z"}
_OFFSETS = {("flow", "learned"): 0.91, ("flow", "map"): 0.97, ("classifier", "learned"): 1.03}


def plot_map_against_data(summary: pd.DataFrame, *, nominal: float = 0.683) -> Figure:
    """Coverage and bias of both parameters against the number of training events.

    Args:
        summary: rows of `summarize_map`; filled markers know the map, open ones learn it.
        nominal: coverage to be reached.

    Returns:
        The figure; biases are root mean squares over test points in standard deviations of a toy, above a
        gray band that toys of an exact likelihood would show too.
    """
    models = summary[summary["knowledge"] != "other"]
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.8))
        axes = figure.subplots(2, 2, sharex=True, sharey="row")
        for column, parameter in enumerate(("mu", "z")):
            part = models[models["parameter"] == parameter]
            for row, value in enumerate(("coverage", "bias")):
                _draw(axes[row, column], part, value)
            axes[0, column].axhline(nominal, color=NEUTRAL_COLOR, linestyle=":", linewidth=1.2)
            axes[1, column].axhspan(
                0, float(part["floor"].mean()), color=NEUTRAL_COLOR, alpha=0.25, linewidth=0
            )
            axes[0, column].set_title(f"${_NAMES[parameter]}$")
            axes[1, column].set_xlabel("training events of each component")
        # Only once both panels are drawn, as a limit ends the scaling to the data of the row.
        axes[1, 0].set_ylim(bottom=0)
        axes[0, 0].set_ylabel("coverage")
        axes[1, 0].set_ylabel("bias [σ]")
        figure.legend(handles=_handles(), loc="outside upper center", ncols=4)
    return figure


def _draw(axis: Axes, part: pd.DataFrame, value: str) -> None:
    for (method, knowledge), rows in part.groupby(["method", "knowledge"], sort=False):
        look = METHOD_STYLES[str(method)]
        axis.errorbar(
            rows["n_events"] * _OFFSETS.get((str(method), str(knowledge)), 1.09),
            rows[value],
            yerr=rows[f"{value}_error"],
            fmt=look.marker,
            color=look.color,
            markerfacecolor=look.color if knowledge == "map" else "white",
            linestyle="-" if knowledge == "map" else "--",
            linewidth=1.1,
            label=f"{method}, {knowledge}",
        )
    counts = sorted(set(part["n_events"]))
    axis.set_xscale("log")
    axis.set_xlim(counts[0] / 1.5, counts[-1] * 1.5)
    axis.set_xticks(counts, [f"{count:,}" for count in counts])
    axis.set_xticks([], minor=True)


def _handles() -> list[Line2D]:
    handles = []
    for method in ("flow", "classifier"):
        look = METHOD_STYLES[method]
        for known in (False, True):
            handles.append(
                Line2D(
                    [],
                    [],
                    color=look.color,
                    marker=look.marker,
                    markerfacecolor=look.color if known else "white",
                    linestyle="-" if known else "--",
                    label=f"{look.label}, {'map known' if known else 'z learned'}",
                )
            )
    return handles


def plot_higgs_frame(
    measured: Mapping[float, tuple[Tensor, Tensor]], framed: Mapping[float, tuple[Tensor, Tensor]]
) -> Figure:
    """Events of the published pair at two scales, as measured and moved to z = 1.

    Args:
        measured: signal and background events, each ``(n, 2)`` in GeV and as a pure number, by scale; the
            first scale is drawn with filled markers.
        framed: the same events in the frame.
    """
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.5))
        axes = figure.subplots(1, 2, sharex=True, sharey=True)
        titles = ("as measured", "moved to z = 1")
        for axis, title, events in zip(axes, titles, (measured, framed), strict=True):
            for number, (scale, pair) in enumerate(events.items()):
                for name, part, color in zip(
                    ("signal", "background"), pair, (SIGNAL_COLOR, BACKGROUND_COLOR), strict=True
                ):
                    axis.scatter(
                        part[:, 0],
                        part[:, 1],
                        s=9,
                        marker="s" if number else "o",
                        edgecolors=color,
                        facecolors="none" if number else color,
                        linewidths=0.6,
                        alpha=0.7,
                        label=f"{name}, z = {scale:g}",
                    )
            axis.set(title=title, xlabel="visible mass m [GeV]", yscale="log")
            axis.set_yticks(_RATIO_TICKS, [f"{tick:g}" for tick in _RATIO_TICKS])
            axis.set_yticks([], minor=True)
        axes[0].set_ylabel("ratio of transverse momenta ρ")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=4, markerscale=1.6)
    return figure
