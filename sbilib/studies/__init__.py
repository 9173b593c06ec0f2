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
from sbilib.studies.cut_optimization import (
    cut_gradients,
    cut_significance,
    exact_soft_yields,
    sample_spectra,
)
from sbilib.studies.descent import descend
from sbilib.studies.edges import EffectiveDirection, effective_direction
from sbilib.studies.ensemble_errors import (
    ErrorDecomposition,
    decompose_members,
    ensemble_coverage,
    ensemble_overlaps,
    ensemble_shifts,
    fit_decomposition,
    mean_square_shifts,
    member_spread,
    shifted_coverage,
    widen_intervals,
)
from sbilib.studies.ensembles import MemberToys, SubEnsemble, disjoint_sub_ensembles, fit_ensembles
from sbilib.studies.evaluation import evaluate_pair
from sbilib.studies.frame_limits import (
    FrameErrors,
    fit_normal_pair,
    frame_errors,
    frame_limit,
    simulate_normal_fits,
)
from sbilib.studies.framed import FittedFramedPair, FramedRecipe, fit_framed_pair, frame_events
from sbilib.studies.higgs_agreement import RocCurve, model_disagreement, toy_disagreement, warning_roc
from sbilib.studies.higgs_models import HiggsModels, HiggsSplits, higgs_test_sets
from sbilib.studies.higgs_recipes import higgs_framed_recipe, higgs_recipe
from sbilib.studies.higgs_scaling import StandardizedProblem, fit_scaling
from sbilib.studies.higgs_tables import TabulatedPair
from sbilib.studies.higgs_toys import (
    Reservoir,
    ReservoirToys,
    problem_yields,
    reservoir_error,
    summarize_toys,
)
from sbilib.studies.higgs_training import ShiftedBatches, fit_higgs_framed, fit_higgs_pairs
from sbilib.studies.inferno import InfernoRun, InfernoStudy, train_inferno
from sbilib.studies.loss_landscape import (
    LANDSCAPE_LOSSES,
    full_gaussianity,
    landscape_values,
    statistic_at_alpha,
    turning_points,
    two_bin_templates,
)
from sbilib.studies.metrics import METRICS, Evaluation, evaluate_densities, summarize_metrics
from sbilib.studies.one_bin import CONSTRAINTS, ToyDiscovery, one_bin_model, toy_discovery
from sbilib.studies.pairs import FittedPair, cache_folder, fit_pair
from sbilib.studies.parabolic import counting_skewness, edge_levels, predicted_level
from sbilib.studies.published import sluijter_table_4_2, sluijter_table_4_3
from sbilib.studies.recipes import METHODS, RECIPES, Recipe, get_recipe
from sbilib.studies.stacks import fit_pairs
from sbilib.studies.stopped import fit_stopped_pair, stopped_recipe
from sbilib.studies.summaries import SummaryRun, SummaryStudy, TrainedSummaries, train_summaries
from sbilib.studies.summary_metrics import SummaryMetrics, evaluate_summary, hard_templates
from sbilib.studies.sweep import Sweep
from sbilib.studies.sweep_files import SweepResult
from sbilib.studies.sweep_run import SweepRunner, finished_or_run, gather
from sbilib.studies.sweep_summary import (
    best_rates,
    best_rates_beside_published,
    blind_loss,
    chosen_models,
    compare_swaps,
    estimated_hours,
    flow_losses,
    metrics_by_swaps,
    model_means,
    summarize_sweep,
)
from sbilib.studies.symmetry import (
    KNOWLEDGE,
    SymmetryJob,
    coverage_in_toys,
    fit_job,
    summarize_symmetry,
    symmetry_table,
)

__all__ = [
    "CONSTRAINTS",
    "KNOWLEDGE",
    "LANDSCAPE_LOSSES",
    "METHODS",
    "METRICS",
    "RECIPES",
    "EffectiveDirection",
    "ErrorDecomposition",
    "Evaluation",
    "FittedFramedPair",
    "FittedPair",
    "FrameErrors",
    "FramedRecipe",
    "HiggsModels",
    "HiggsSplits",
    "InfernoRun",
    "InfernoStudy",
    "MemberToys",
    "Recipe",
    "Reservoir",
    "ReservoirToys",
    "RocCurve",
    "ShiftedBatches",
    "StandardizedProblem",
    "SubEnsemble",
    "SummaryMetrics",
    "SummaryRun",
    "SummaryStudy",
    "Sweep",
    "SweepResult",
    "SweepRunner",
    "SymmetryJob",
    "TabulatedPair",
    "ToyDiscovery",
    "TrainedSummaries",
    "best_rates",
    "best_rates_beside_published",
    "blind_loss",
    "bootstrap_coverage",
    "cache_folder",
    "chosen_models",
    "compare_swaps",
    "count_variance_share",
    "counting_skewness",
    "coverage_in_toys",
    "cut_gradients",
    "cut_significance",
    "decompose_members",
    "descend",
    "disjoint_sub_ensembles",
    "edge_levels",
    "effective_direction",
    "ensemble_coverage",
    "ensemble_overlaps",
    "ensemble_shifts",
    "estimated_hours",
    "evaluate_densities",
    "evaluate_pair",
    "evaluate_summary",
    "exact_soft_yields",
    "expected_bootstrap_coverage",
    "expected_fixed_count_coverage",
    "finished_or_run",
    "fit_decomposition",
    "fit_ensembles",
    "fit_framed_pair",
    "fit_higgs_framed",
    "fit_higgs_pairs",
    "fit_job",
    "fit_normal_pair",
    "fit_pair",
    "fit_pairs",
    "fit_scaling",
    "fit_stopped_pair",
    "flow_losses",
    "frame_errors",
    "frame_events",
    "frame_limit",
    "full_gaussianity",
    "gather",
    "get_recipe",
    "hard_templates",
    "higgs_framed_recipe",
    "higgs_recipe",
    "higgs_test_sets",
    "landscape_values",
    "mean_square_shifts",
    "member_spread",
    "metrics_by_swaps",
    "model_disagreement",
    "model_means",
    "one_bin_model",
    "predicted_level",
    "problem_yields",
    "reservoir_error",
    "sample_spectra",
    "shifted_coverage",
    "simulate_normal_fits",
    "sluijter_table_4_2",
    "sluijter_table_4_3",
    "statistic_at_alpha",
    "stopped_recipe",
    "summarize_bootstrap_coverage",
    "summarize_metrics",
    "summarize_sweep",
    "summarize_symmetry",
    "summarize_toy_coverage",
    "summarize_toys",
    "symmetry_table",
    "test_points",
    "toy_coverage",
    "toy_disagreement",
    "toy_discovery",
    "train_inferno",
    "train_summaries",
    "turning_points",
    "two_bin_templates",
    "warning_roc",
    "widen_intervals",
]
