"""Figures from result objects, in one style."""

from sbilib.plotting.edges import plot_against_nuisance
from sbilib.plotting.events import plot_calibration, plot_events
from sbilib.plotting.likelihoods import ContourPanel, plot_contours, plot_interval_construction
from sbilib.plotting.style import (
    BACKGROUND_COLOR,
    CLASSIFIER_COLOR,
    FLOW_COLOR,
    METHOD_STYLES,
    NEUTRAL_COLOR,
    SIGNAL_COLOR,
    TRUTH_COLOR,
    figure_size,
    style_context,
    use_style,
)

__all__ = [
    "BACKGROUND_COLOR",
    "CLASSIFIER_COLOR",
    "FLOW_COLOR",
    "METHOD_STYLES",
    "NEUTRAL_COLOR",
    "SIGNAL_COLOR",
    "TRUTH_COLOR",
    "ContourPanel",
    "figure_size",
    "plot_against_nuisance",
    "plot_calibration",
    "plot_contours",
    "plot_events",
    "plot_interval_construction",
    "style_context",
    "use_style",
]
