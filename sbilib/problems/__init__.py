"""Simulators and data sets: what makes the events, and how test sets are mixed from them."""

from sbilib.problems.base import COMPONENTS, ExactProblem, MappedProblem, Problem
from sbilib.problems.gaussian import GaussianToy
from sbilib.problems.maps import Rotation, check_nuisance_map
from sbilib.problems.sets import (
    TestSet,
    TrainingSet,
    bootstrap_counts,
    make_test_set,
    make_toys,
    make_training_set,
    published_test_sets,
    signal_count,
)

__all__ = [
    "COMPONENTS",
    "ExactProblem",
    "GaussianToy",
    "MappedProblem",
    "Problem",
    "Rotation",
    "TestSet",
    "TrainingSet",
    "bootstrap_counts",
    "check_nuisance_map",
    "make_test_set",
    "make_toys",
    "make_training_set",
    "published_test_sets",
    "signal_count",
]
