"""Simulators and data sets: what makes the events, and how test sets are mixed from them."""

from sbilib.problems.base import COMPONENTS, ExactProblem, MappedProblem, Problem
from sbilib.problems.blobs import BLOBS, BlobEvents, GaussianBlobs
from sbilib.problems.bsm_data import (
    BsmData,
    BsmFolder,
    BsmTables,
    bsm_data_folder,
    cached_bsm_folder,
    default_bsm_data,
    split_bsm_events,
)
from sbilib.problems.bsm_loaders import load_labeled_csv, load_uci_higgs
from sbilib.problems.cut_example import FallingSpectrum, OneBinYields, SpectrumEvents, one_bin_yields
from sbilib.problems.gaussian import GaussianToy
from sbilib.problems.higgs import PUBLISHED_FEATURES, TAU_THRESHOLD, Efficiency, HiggsTauTau, WeightedEvents
from sbilib.problems.higgs_data import (
    EventFolder,
    EventTable,
    EventTables,
    HiggsData,
    cached_data_folder,
    data_folder,
    split_events,
)
from sbilib.problems.higgs_features import (
    FEATURE_TRANSFORMS,
    FeatureTransform,
    PowerScaling,
    transform_features,
)
from sbilib.problems.higgs_loaders import load_fair_universe, load_higgsml
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
    "FEATURE_TRANSFORMS",
    "INFERNO_CASES",
    "INFERNO_PARAMETERS",
    "PUBLISHED_FEATURES",
    "TAU_THRESHOLD",
    "BlobEvents",
    "BsmData",
    "BsmFolder",
    "BsmTables",
    "Efficiency",
    "EventFolder",
    "EventTable",
    "EventTables",
    "ExactProblem",
    "FallingSpectrum",
    "FeatureTransform",
    "GaussianBlobs",
    "GaussianToy",
    "HiggsData",
    "HiggsTauTau",
    "InfernoBenchmark",
    "InfernoCase",
    "InfernoNoise",
    "MappedProblem",
    "OneBinYields",
    "PowerScaling",
    "Problem",
    "Rotation",
    "SpectrumEvents",
    "TestSet",
    "TrainingSet",
    "WeightedEvents",
    "bootstrap_counts",
    "bsm_data_folder",
    "cached_bsm_folder",
    "cached_data_folder",
    "check_nuisance_map",
    "data_folder",
    "default_bsm_data",
    "load_fair_universe",
    "load_higgsml",
    "load_labeled_csv",
    "load_uci_higgs",
    "make_test_set",
    "make_toys",
    "make_training_set",
    "one_bin_yields",
    "published_test_sets",
    "sigma_of_signal",
    "signal_count",
    "spawn_generators",
    "split_bsm_events",
    "split_events",
    "transform_features",
]
