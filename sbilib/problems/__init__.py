"""Simulators and data sets: what makes the events, and how test sets are mixed from them."""

from sbilib.problems.base import COMPONENTS, ExactProblem, MappedProblem, Problem
from sbilib.problems.blobs import BLOBS, BlobEvents, GaussianBlobs
from sbilib.problems.cut_example import FallingSpectrum, OneBinYields, SpectrumEvents, one_bin_yields
from sbilib.problems.gaussian import GaussianToy
from sbilib.problems.inferno import (
    INFERNO_CASES,
    INFERNO_PARAMETERS,
    InfernoBenchmark,
    InfernoCase,
    InfernoNoise,
    sigma_of_signal,
)
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
from sbilib.problems.streams import spawn_generators

__all__ = [
    "BLOBS",
    "COMPONENTS",
    "INFERNO_CASES",
    "INFERNO_PARAMETERS",
    "BlobEvents",
    "ExactProblem",
    "FallingSpectrum",
    "GaussianBlobs",
    "GaussianToy",
    "InfernoBenchmark",
    "InfernoCase",
    "InfernoNoise",
    "MappedProblem",
    "OneBinYields",
    "Problem",
    "Rotation",
    "SpectrumEvents",
    "TestSet",
    "TrainingSet",
    "bootstrap_counts",
    "check_nuisance_map",
    "make_test_set",
    "make_toys",
    "make_training_set",
    "one_bin_yields",
    "published_test_sets",
    "sigma_of_signal",
    "signal_count",
    "spawn_generators",
]
