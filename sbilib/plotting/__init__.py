"""Figures from result objects, in one style."""

from sbilib.plotting.coverage import (
    NOMINAL_LEVEL,
    CoveragePanel,
    plot_bootstrap_coverage,
    plot_edge_levels,
    plot_skewness,
    plot_window_effect,
)
from sbilib.plotting.edges import plot_against_nuisance
from sbilib.plotting.ensembles import (
    EnsembleCurves,
    plot_ensemble_sizes,
    plot_error_decomposition,
    plot_mean_errors,
    plot_widened_coverage,
)
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
from sbilib.plotting.sweeps import METRIC_LABELS, plot_learning_rates, plot_model_histograms, plot_swaps
from sbilib.plotting.symmetry import DataPanel, plot_frame, plot_overlap_against_data

__all__ = [
    "BACKGROUND_COLOR",
    "CLASSIFIER_COLOR",
    "FLOW_COLOR",
    "METHOD_STYLES",
    "METRIC_LABELS",
    "NEUTRAL_COLOR",
    "NOMINAL_LEVEL",
    "SIGNAL_COLOR",
    "TRUTH_COLOR",
    "ContourPanel",
    "CoveragePanel",
    "DataPanel",
    "EnsembleCurves",
    "figure_size",
    "plot_against_nuisance",
    "plot_bootstrap_coverage",
    "plot_calibration",
    "plot_contours",
    "plot_edge_levels",
    "plot_ensemble_sizes",
    "plot_error_decomposition",
    "plot_events",
    "plot_frame",
    "plot_interval_construction",
    "plot_learning_rates",
    "plot_mean_errors",
    "plot_model_histograms",
    "plot_overlap_against_data",
    "plot_skewness",
    "plot_swaps",
    "plot_widened_coverage",
    "plot_window_effect",
    "style_context",
    "use_style",
]
