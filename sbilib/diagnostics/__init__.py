"""Is this density, or this ratio, right?  Are two samples the same?"""

from sbilib.diagnostics.calibration import RatioCalibration, ratio_calibration
from sbilib.diagnostics.correlations import CorrelationComparison, compare_correlations, correlation_matrix
from sbilib.diagnostics.divergences import (
    DIVERGENCES,
    BinnedDivergences,
    FeatureDivergences,
    binned_divergences,
    compare_features,
)
from sbilib.diagnostics.sliced import SlicedWasserstein, random_directions, sliced_wasserstein
from sbilib.diagnostics.tails import TAIL_LEVELS, TailComparison, compare_tails
from sbilib.diagnostics.two_sample import ClassifierTest, RocArea, classifier_test, roc_area

__all__ = [
    "DIVERGENCES",
    "TAIL_LEVELS",
    "BinnedDivergences",
    "ClassifierTest",
    "CorrelationComparison",
    "FeatureDivergences",
    "RatioCalibration",
    "RocArea",
    "SlicedWasserstein",
    "TailComparison",
    "binned_divergences",
    "classifier_test",
    "compare_correlations",
    "compare_features",
    "compare_tails",
    "correlation_matrix",
    "random_directions",
    "ratio_calibration",
    "roc_area",
    "sliced_wasserstein",
]
