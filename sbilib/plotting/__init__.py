"""Figures from result objects, in one style."""

from sbilib.plotting.coverage import (
    NOMINAL_LEVEL,
    CoveragePanel,
    plot_bootstrap_coverage,
    plot_edge_levels,
    plot_skewness,
    plot_window_effect,
)
from sbilib.plotting.curves import Band, Curve, CurvePanel, plot_curves
from sbilib.plotting.edges import plot_against_nuisance
from sbilib.plotting.ensembles import (
    EnsembleCurves,
    plot_ensemble_sizes,
    plot_error_decomposition,
    plot_mean_errors,
    plot_widened_coverage,
)
from sbilib.plotting.events import plot_calibration, plot_events
from sbilib.plotting.landscapes import LossMap, StackedYield, plot_landscapes, plot_stacked_yields
from sbilib.plotting.likelihoods import ContourPanel, plot_contours, plot_interval_construction
from sbilib.plotting.optimization import GraphNode, Path2D, Surface, plot_graph, plot_paths
from sbilib.plotting.style import (
    BACKGROUND_COLOR,
    CLASSIFIER_COLOR,
    FLOW_COLOR,
    METHOD_STYLES,
    NEUTRAL_COLOR,
    SERIES_COLORS,
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
    "SERIES_COLORS",
    "SIGNAL_COLOR",
    "TRUTH_COLOR",
    "Band",
    "ContourPanel",
    "CoveragePanel",
    "Curve",
    "CurvePanel",
    "DataPanel",
    "EnsembleCurves",
    "GraphNode",
    "LossMap",
    "Path2D",
    "StackedYield",
    "Surface",
    "figure_size",
    "plot_against_nuisance",
    "plot_bootstrap_coverage",
    "plot_calibration",
    "plot_contours",
    "plot_curves",
    "plot_edge_levels",
    "plot_ensemble_sizes",
    "plot_error_decomposition",
    "plot_events",
    "plot_frame",
    "plot_graph",
    "plot_interval_construction",
    "plot_landscapes",
    "plot_learning_rates",
    "plot_mean_errors",
    "plot_model_histograms",
    "plot_overlap_against_data",
    "plot_paths",
    "plot_skewness",
    "plot_stacked_yields",
    "plot_swaps",
    "plot_widened_coverage",
    "plot_window_effect",
    "style_context",
    "use_style",
]
