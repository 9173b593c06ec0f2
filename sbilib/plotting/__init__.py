"""Figures from result objects, in one style."""

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
    "figure_size",
    "style_context",
    "use_style",
]
