"""Cuts, histograms and results of inference as differentiable functions, and losses made of them."""

from sbilib.differentiable.classification import augmented_cross_entropy, binary_cross_entropy
from sbilib.differentiable.cuts import hard_cut, soft_cut
from sbilib.differentiable.edges import OrderedEdges
from sbilib.differentiable.gaussianity import profile_gaussianity
from sbilib.differentiable.histogram import hard_histogram, largest_output_histogram, softmax_histogram
from sbilib.differentiable.inference import asimov_q, expected_cls, expected_p0
from sbilib.differentiable.kde import binned_kde
from sbilib.differentiable.losses import LOSSES, Logits, Loss, make_loss
from sbilib.differentiable.significance import asimov_significance
from sbilib.differentiable.templates import AnalysisSettings, ExpectedYields, Templates
from sbilib.differentiable.variances import (
    asimov_information,
    binned_information,
    constraint_deviation,
    expected_covariance,
    generalized_variance,
    sigma_mu,
)

__all__ = [
    "LOSSES",
    "AnalysisSettings",
    "ExpectedYields",
    "Logits",
    "Loss",
    "OrderedEdges",
    "Templates",
    "asimov_information",
    "asimov_q",
    "asimov_significance",
    "augmented_cross_entropy",
    "binary_cross_entropy",
    "binned_information",
    "binned_kde",
    "constraint_deviation",
    "expected_cls",
    "expected_covariance",
    "expected_p0",
    "generalized_variance",
    "hard_cut",
    "hard_histogram",
    "largest_output_histogram",
    "make_loss",
    "profile_gaussianity",
    "sigma_mu",
    "soft_cut",
    "softmax_histogram",
]
