"""Simulators and data sets: what makes the events, and how test sets are mixed from them."""

from sbilib.problems.base import COMPONENTS, ExactProblem, Problem
from sbilib.problems.gaussian import GaussianToy
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
    "Problem",
    "TestSet",
    "TrainingSet",
    "bootstrap_counts",
    "make_test_set",
    "make_toys",
    "make_training_set",
    "published_test_sets",
    "signal_count",
]
