"""Figures of learned observables: templates in their bins, and contours in the plane of the features.

>>> import numpy as np
>>> bins = np.array([1.0, 2.0])
>>> panel = TemplatePanel("seed 1", [0.0, 0.5, 1.0], bins, 3 * bins, 4 * bins, 2 * bins)
>>> len(plot_templates([panel]).axes)
1
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from sbilib.errors import DataError, ParameterError
from sbilib.plotting.curves import Band, Curve, CurvePanel
from sbilib.plotting.style import (
    BACKGROUND_COLOR,
    CLASSIFIER_COLOR,
    NEUTRAL_COLOR,
    SERIES_COLORS,
    SIGNAL_COLOR,
    TRUTH_COLOR,
    figure_size,
    style_context,
)

__all__ = [
    "LOSS_STYLES",
    "VARIATION_COLORS",
    "LossStyle",
    "ObservablePanel",
    "TemplatePanel",
    "metric_panels",
    "plot_observables",
    "plot_templates",
]

VARIATION_COLORS: Mapping[str, str] = MappingProxyType(
    {"signal": SIGNAL_COLOR, "background": BACKGROUND_COLOR, "up": NEUTRAL_COLOR, "down": "#CC79A7"}
)
"""Colors of signal, nominal background, and background varied up and down."""


class LossStyle(NamedTuple):
    """Look of the curve of one loss."""

    label: str
    """Name in legends."""
    color: str
    """Hexadecimal color."""
    linestyle: str
    """Matplotlib line style."""


LOSS_STYLES: Mapping[str, LossStyle] = MappingProxyType(
    {
        "bce_augmented": LossStyle("BCE", CLASSIFIER_COLOR, "-."),
        "cls": LossStyle("CLs", SERIES_COLORS[1], "-"),
        "p0": LossStyle(r"$p_0$", SERIES_COLORS[3], "--"),
        "cls + p0": LossStyle(r"CLs + $p_0$", SERIES_COLORS[4], "-"),
        "sigma_mu": LossStyle(r"$\sigma_\mu$", SERIES_COLORS[0], ":"),
        "log_cls": LossStyle(r"$\ln$ CLs", SERIES_COLORS[1], "-"),
        "log_p0": LossStyle(r"$\ln p_0$", SERIES_COLORS[3], "--"),
        "log_cls + log_p0": LossStyle(r"$\ln$ CLs + $\ln p_0$", SERIES_COLORS[4], "-"),
    }
)
"""Names and curves of losses, by :attr:`sbilib.differentiable.Loss.name`."""


class TemplatePanel(NamedTuple):
    """Expected events of one observable."""

    title: str
    """Title of the panel."""
    edges: ArrayLike
    """Edges of the bins, ``(n_bins + 1,)``."""
    signal: ArrayLike
    """Expected signal events, ``(n_bins,)``."""
    background: ArrayLike
    """Expected background events, ``(n_bins,)``."""
    up: ArrayLike
    """Background at plus one standard deviation, ``(n_bins,)``."""
    down: ArrayLike
    """Background at minus one standard deviation, ``(n_bins,)``."""


class ObservablePanel(NamedTuple):
    """One observable over the plane of two features."""

    title: str
    """Title of the panel."""
    axis: ArrayLike
    """Coordinates of either feature, ``(n,)``."""
    values: ArrayLike
    """The observable, ``(n, n)``; rows belong to the second feature."""
    edges: ArrayLike
    """Edges of its bins, ``(n_bins + 1,)``, the levels of the contours."""
    events: Mapping[str, ArrayLike]
    """Events to show, ``(n_events, 2)``, by their name in :data:`VARIATION_COLORS`; may be empty."""


def metric_panels(
    epochs: ArrayLike,
    recorded: Mapping[str, Mapping[str, ArrayLike]],
    labels: Mapping[str, str],
    *,
    limits: Mapping[str, float] | None = None,
    linear: Sequence[str] = (),
) -> list[CurvePanel]:
    """Panels of metrics during training: median over the seeds, and a band from the lowest to the highest.

    Args:
        epochs: epoch of each record, ``(n_records,)``.
        recorded: metrics ``(n_records, n_seeds)`` of each loss, by names of :data:`LOSS_STYLES`.
        labels: the metrics to show and their names.
        limits: what cannot be passed, by metric, drawn as dotted lines.
        linear: metrics to show on a linear axis.

    Returns:
        One panel a metric, for :func:`sbilib.plotting.curves.plot_curves`; the first has the legend.

    Raises:
        ParameterError: for a loss without a style.
    """
    unknown = [name for name in recorded if name not in LOSS_STYLES]
    if unknown:
        raise ParameterError(f"no style for the loss {unknown[0]!r}; choose from {', '.join(LOSS_STYLES)}")
    panels: list[CurvePanel] = []
    for metric, label in labels.items():
        curves, bands = [], []
        for name, metrics in recorded.items():
            look, values = LOSS_STYLES[name], np.asarray(metrics[metric], dtype=float)
            curves.append(Curve(look.label, epochs, np.median(values, axis=1), look.color, look.linestyle))
            bands.append(Band("", epochs, values.min(axis=1), values.max(axis=1), look.color, 0.13))
        panels.append(
            CurvePanel(
                "",
                "epoch",
                label,
                curves,
                bands,
                horizontal=[limits[metric]] if limits and metric in limits else [],
                log="" if metric in linear else "y",
                legend="" if panels else "best",
            )
        )
    return panels


def plot_templates(panels: Sequence[TemplatePanel], *, columns: int = 3, height: float = 0.3) -> Figure:
    """Templates of signal and backgrounds on a logarithmic axis, one panel an observable.

    Args:
        panels: the observables, filled row by row.
        columns: panels in a row at most.
        height: height of a row over the width of the text.

    Raises:
        ParameterError: if there is no panel or no column.
        DataError: if edges and counts of a panel do not fit; the message names it.
    """
    with style_context():
        figure, axes = _grid(len(panels), columns, height)
        for axis, panel in zip(axes, panels, strict=False):
            _draw_templates(axis, panel)
        _finish(figure, axes[: len(panels)], columns, "observable", "expected events")
    return figure


def plot_observables(panels: Sequence[ObservablePanel], *, columns: int = 3, height: float = 0.36) -> Figure:
    """Observables as shades over the plane, a line where one bin meets the next, and events on top.

    Args:
        panels: the observables, filled row by row.
        columns: panels in a row at most.
        height: height of a row over the width of the text.

    Raises:
        ParameterError: if there is no panel or no column.
        DataError: if values and axis of a panel do not fit; the message names it.
    """
    with style_context():
        figure, axes = _grid(len(panels), columns, height)
        for axis, panel in zip(axes, panels, strict=False):
            _draw_observable(axis, panel)
        _finish(figure, axes[: len(panels)], columns, "$x$", "$y$")
    return figure


def _grid(n: int, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    if n < 1 or columns < 1:
        raise ParameterError(f"the figure needs a panel and a column, got {n} panels and {columns} columns")
    columns = min(columns, n)
    rows = -(-n // columns)
    figure = Figure(figsize=figure_size(aspect=height * rows))
    axes = list(figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel())
    for axis in axes[n:]:
        axis.set_visible(False)
    return figure, axes


def _finish(figure: Figure, axes: list[Axes], columns: int, x_label: str, y_label: str) -> None:
    """Label the outer axes, and put one legend where no panel is, or above."""
    for place, axis in enumerate(axes):
        if place % columns == 0:
            axis.set_ylabel(y_label)
        if place + columns >= len(axes):
            axis.set_xlabel(x_label)
            axis.tick_params(labelbottom=True)
    handles, labels = axes[0].get_legend_handles_labels()
    if not handles:
        return
    spare = [axis for axis in figure.axes if not axis.get_visible()]
    if spare:
        spare[-1].set_visible(True)
        spare[-1].set_axis_off()
        spare[-1].legend(handles, labels, loc="center", markerscale=4)
    else:
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), markerscale=4)


def _draw_templates(axis: Axes, panel: TemplatePanel) -> None:
    edges = np.asarray(panel.edges, dtype=float)
    labels = {"background": "background", "up": "background, up", "down": "background, down"}
    for name, look in (("background", "-"), ("up", "--"), ("down", "-."), ("signal", "-")):
        counts = np.asarray(getattr(panel, name), dtype=float)
        if len(edges) != len(counts) + 1:
            raise DataError(
                f"panel {panel.title!r} needs {len(counts) + 1} edges for {len(counts)} bins of {name}, "
                f"got {len(edges)}; pass one edge more than bins"
            )
        axis.stairs(
            counts,
            edges,
            baseline=1e-3 if name in ("signal", "background") else None,
            fill=name == "background",
            alpha=0.55 if name == "background" else 1.0,
            color=VARIATION_COLORS[name],
            linewidth=2.0 if name == "signal" else 1.3,
            linestyle=look,
            label=labels.get(name, name),
        )
    axis.set_yscale("log")
    axis.set(title=panel.title, xlim=(edges[0], edges[-1]), ylim=(2e-3, 200))


def _draw_observable(axis: Axes, panel: ObservablePanel) -> None:
    x, values = np.asarray(panel.axis, dtype=float), np.asarray(panel.values, dtype=float)
    if values.shape != (len(x), len(x)):
        raise DataError(
            f"panel {panel.title!r} needs values of shape {(len(x), len(x))}, got {values.shape}; "
            "pass one value for each point of the grid"
        )
    edges = np.asarray(panel.edges, dtype=float)
    inner = edges[1:-1]
    # A gray of its own for each bin: bins may be narrow, and equal shades would merge them.
    axis.pcolormesh(x, x, np.digitize(values, inner), cmap="Greys", vmin=-1, vmax=1.6 * len(inner), zorder=0)
    crossed = inner[(inner > values.min()) & (inner < values.max())]
    if len(crossed):
        axis.contour(x, x, values, crossed, colors=TRUTH_COLOR, linewidths=0.6)
    labels = {"background": "background", "up": "background, up", "down": "background, down"}
    for name, events in panel.events.items():
        points = np.asarray(events, dtype=float)
        axis.plot(
            points[:, 0],
            points[:, 1],
            ".",
            markersize=2.0,
            color=VARIATION_COLORS[name],
            label=labels.get(name, name),
        )
    axis.set(title=panel.title, xlim=(x.min(), x.max()), ylim=(x.min(), x.max()), aspect="equal")
