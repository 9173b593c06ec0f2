"""Figures of events and of learned ratios."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure
from torch import Tensor

from sbilib.diagnostics import RatioCalibration
from sbilib.plotting.style import (
    BACKGROUND_COLOR,
    METHOD_STYLES,
    SIGNAL_COLOR,
    TRUTH_COLOR,
    figure_size,
    style_context,
)

__all__ = ["plot_calibration", "plot_events"]


def plot_events(cases: Mapping[str, tuple[Tensor, Tensor]]) -> Figure:
    """Scatter plots of signal and background events, one panel a case.

    Args:
        cases: signal and background events, each ``(n, 2)`` in units of the width of a Gaussian, by title of
            the panel.

    Returns:
        The figure, unknown to pyplot.
    """
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.5 if len(cases) > 1 else 0.75))
        axes = figure.subplots(1, len(cases), sharex=True, sharey=True, squeeze=False)[0]
        for axis, (title, (signal, background)) in zip(axes, cases.items(), strict=True):
            for events, color, name, marker in (
                (background, BACKGROUND_COLOR, "background", "s"),
                (signal, SIGNAL_COLOR, "signal", "o"),
            ):
                axis.plot(
                    *events.T.numpy(), marker, color=color, markersize=2, alpha=0.5, label=name, linestyle=""
                )
            axis.set(title=title, xlabel="x [width of a Gaussian]", aspect="equal")
        axes[0].set_ylabel("y [width of a Gaussian]")
        axes[0].legend(loc="upper left", markerscale=3)
    return figure


def plot_calibration(panels: Mapping[str, Mapping[str, RatioCalibration]]) -> Figure:
    """Learned minus exact log ratio of signal to background against the exact one.

    Args:
        panels: by title of the panel, the calibration of each method (``"flow"``, ``"classifier"``); lines
            are medians, bands hold 68% of the events.

    Returns:
        The figure, unknown to pyplot, with up to two panels a row.
    """
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.42 * ((len(panels) + 1) // 2)))
        columns = min(2, len(panels))
        axes = figure.subplots(-(-len(panels) // columns), columns, squeeze=False, sharey="row").ravel()
        for axis, (title, curves) in zip(axes, panels.items(), strict=False):
            axis.axhline(0.0, color=TRUTH_COLOR, linewidth=1.0)
            for method, curve in curves.items():
                style = METHOD_STYLES[method]
                axis.fill_between(
                    curve.exact, curve.low, curve.high, color=style.color, alpha=0.2, linewidth=0
                )
                axis.plot(
                    curve.exact,
                    curve.difference,
                    color=style.color,
                    linestyle=style.linestyle,
                    label=style.label,
                )
            axis.set_title(title)
            axis.set_xlabel(r"exact $\log\,p(x|\mathrm{sig},z)/p(x|\mathrm{bkg},z)$")
        for axis in axes[::columns]:
            axis.set_ylabel("learned minus exact")
        axes[0].legend(loc="best")
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
    return figure
