"""What the book measures: pairs of models, coverage, overlap.  Composes all the other rooms."""

from sbilib.studies.edges import EffectiveDirection, effective_direction
from sbilib.studies.metrics import METRICS, evaluate_densities, scan_test_sets, summarize_metrics
from sbilib.studies.pairs import FittedPair, cache_folder, fit_pair
from sbilib.studies.published import sluijter_table_4_2
from sbilib.studies.recipes import METHODS, RECIPES, Recipe, get_recipe

__all__ = [
    "METHODS",
    "METRICS",
    "RECIPES",
    "EffectiveDirection",
    "FittedPair",
    "Recipe",
    "cache_folder",
    "effective_direction",
    "evaluate_densities",
    "fit_pair",
    "get_recipe",
    "scan_test_sets",
    "sluijter_table_4_2",
    "summarize_metrics",
]
