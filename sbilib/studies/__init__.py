"""What the book measures: pairs of models, coverage, overlap.  Composes all the other rooms."""

from sbilib.studies.coverage import (
    bootstrap_coverage,
    summarize_bootstrap_coverage,
    summarize_toy_coverage,
    test_points,
    toy_coverage,
)
from sbilib.studies.coverage_theory import (
    count_variance_share,
    expected_bootstrap_coverage,
    expected_fixed_count_coverage,
)
from sbilib.studies.edges import EffectiveDirection, effective_direction
from sbilib.studies.metrics import METRICS, Evaluation, evaluate_densities, summarize_metrics
from sbilib.studies.pairs import FittedPair, cache_folder, fit_pair
from sbilib.studies.parabolic import counting_skewness, edge_levels, predicted_level
from sbilib.studies.published import sluijter_table_4_2
from sbilib.studies.recipes import METHODS, RECIPES, Recipe, get_recipe

__all__ = [
    "METHODS",
    "METRICS",
    "RECIPES",
    "EffectiveDirection",
    "Evaluation",
    "FittedPair",
    "Recipe",
    "bootstrap_coverage",
    "cache_folder",
    "count_variance_share",
    "counting_skewness",
    "edge_levels",
    "effective_direction",
    "evaluate_densities",
    "expected_bootstrap_coverage",
    "expected_fixed_count_coverage",
    "fit_pair",
    "get_recipe",
    "predicted_level",
    "sluijter_table_4_2",
    "summarize_bootstrap_coverage",
    "summarize_metrics",
    "summarize_toy_coverage",
    "test_points",
    "toy_coverage",
]
