"""Figures of models that know how the nuisance parameter acts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from sbilib.plotting.style import (
    BACKGROUND_COLOR,
    METHOD_STYLES,
    NEUTRAL_COLOR,
    SIGNAL_COLOR,
    figure_size,
    style_context,
)

__all__ = ["DataPanel", "plot_frame", "plot_overlap_against_data"]

_KNOWLEDGE: Mapping[str, dict[str, Any]] = {
    "generic": {"marker": "o", "linestyle": ":", "markerfacecolor": "white"},
    "frame": {"marker": "s", "linestyle": "--"},
    "symmetric": {"marker": "D", "linestyle": "-"},
}
_LIMITS: tuple[dict[str, Any], ...] = (
    {"linestyle": (0, (1, 1)), "linewidth": 1.2},
    {"linestyle": "-", "linewidth": 1.2},
)
_MARKERS = ("o", "^", "s", "D")
_LOWEST = 1e-3


class DataPanel(NamedTuple):
    """One panel of a figure of overlap against the number of training events."""

    title: str
    """Title of the panel."""
    method: str
    """``"flow"`` or ``"classifier"``, for the color."""
    summary: pd.DataFrame
    """Columns ``knowledge``, ``n_events``, ``mean`` and ``error`` (NaN for a single pair)."""
    limits: Mapping[str, Mapping[int, float]]
    """Limits on the overlap by name, at most two, each by number of training events."""


def plot_overlap_against_data(panels: Sequence[Sequence[DataPanel]], *, goal: float | None = None) -> Figure:
    """What is missing to full overlap, against the number of training events, both on logarithmic axes.

    Args:
        panels: rows of panels; the legend is shared.
        goal: an overlap to mark by a horizontal line.
    """
    with style_context():
        rows, columns = len(panels), max(len(row) for row in panels)
        figure = Figure(figsize=figure_size(aspect=0.16 + 0.4 * rows))
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axis_row, panel_row in zip(axes, panels, strict=True):
            for axis, panel in zip(axis_row, panel_row, strict=True):
                _draw_panel(axis, panel, goal)
            axis_row[0].set_ylabel("1 − total overlap")
        for axis in axes[-1]:
            axis.set_xlabel("training events")
        handles: dict[str, Any] = {}
        for axis in axes.ravel():
            for handle, name in zip(*axis.get_legend_handles_labels(), strict=True):
                handles.setdefault(name, handle)
        figure.legend(list(handles.values()), list(handles), loc="outside upper center", ncols=3)
    return figure


def _draw_panel(axis: Axes, panel: DataPanel, goal: float | None) -> None:
    for (name, limit), line in zip(panel.limits.items(), _LIMITS, strict=False):
        events = sorted(limit)
        axis.plot(events, [1 - limit[n] for n in events], color=NEUTRAL_COLOR, label=name, **line)
    if goal is not None:
        axis.axhline(1 - goal, color=NEUTRAL_COLOR, linewidth=0.8, linestyle="-.", label=f"overlap {goal:g}")
    style = METHOD_STYLES[panel.method]
    for knowledge, look in _KNOWLEDGE.items():
        rows = panel.summary[panel.summary["knowledge"] == knowledge].sort_values("n_events")
        if rows.empty:
            continue
        missing = np.maximum(1 - rows["mean"].to_numpy(float), _LOWEST)
        error = np.nan_to_num(rows["error"].to_numpy(float))
        # A lower end at zero would leave the logarithmic axis.
        below = np.minimum(error, 0.9 * missing)
        axis.errorbar(
            rows["n_events"], missing, (below, error), color=style.color, capsize=2, label=knowledge, **look
        )
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_ylim(_LOWEST, 1.3)
    axis.set_title(panel.title)


def plot_frame(
    measured: Mapping[str, tuple[Tensor, Tensor]], framed: Mapping[str, tuple[Tensor, Tensor]]
) -> Figure:
    """Events at several nuisance values, as measured and in the reference frame.

    Args:
        measured: signal and background events, each ``(n, 2)``, by name of the nuisance value, at most four.
        framed: the same events in the frame.
    """
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.56))
        axes = figure.subplots(1, 2, sharex=True, sharey=True)
        for axis, title, events in zip(
            axes, ("as measured", "in the frame"), (measured, framed), strict=True
        ):
            for (name, pair), marker in zip(events.items(), _MARKERS, strict=False):
                for part, color in zip(pair, (SIGNAL_COLOR, BACKGROUND_COLOR), strict=True):
                    filled = {"facecolors": color} if marker == "o" else {"facecolors": "none"}
                    axis.scatter(
                        part[:, 0],
                        part[:, 1],
                        s=9,
                        marker=marker,
                        edgecolors=color,
                        linewidths=0.6,
                        alpha=0.7,
                        label=f"{'signal' if color == SIGNAL_COLOR else 'background'}, {name}",
                        **filled,
                    )
            axis.set_aspect("equal")
            axis.set_title(title)
        axes[0].set(xlabel="$x_1$", ylabel="$x_2$")
        axes[1].set(xlabel="$u_1$", ylabel="$u_2$")
        figure.legend(
            *axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, markerscale=1.6
        )
    return figure
