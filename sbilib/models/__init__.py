"""Networks that learn densities and ratios: conditional flows and classifiers, and their files."""

from sbilib.models.autoregressive import MaskedAutoregressiveFlow, SplineAutoregressiveFlow
from sbilib.models.classifier import Classifier, ClassifierConfig, ClassifierPair
from sbilib.models.coupling import RealNVP, SplineCouplingFlow
from sbilib.models.ensemble import ENSEMBLE_KINDS, Ensemble, EvaluatedMembers
from sbilib.models.files import LoadedModel, load_model, register_model, save_model
from sbilib.models.flow import ConditionalFlow, FlowConfig
from sbilib.models.framed import FramedPair
from sbilib.models.generative import GenerativeModel, density_loss
from sbilib.models.generative_config import AffineFlowConfig, SplineFlowConfig
from sbilib.models.generative_ensemble import GenerativeEnsemble
from sbilib.models.generative_physical import TransformedConfig, TransformedDensity
from sbilib.models.histogram import HistogramPair, QuantileBins
from sbilib.models.mixture import MixtureAutoregressive, MixtureConfig
from sbilib.models.pair import FlowPair
from sbilib.models.preprocessing import LogitStandardize, QuantileConfig, QuantileToNormal
from sbilib.models.preprocessing_base import FeatureTransform, TransformConfig
from sbilib.models.sampling import SampledFile, sample_to_parquet
from sbilib.models.scaling import FeatureScaling, ScaledPair, ScaledPairConfig, ScalingConfig
from sbilib.models.stack import ClassifierStack, FlowStack, stack_models
from sbilib.models.summary import SummaryConfig, SummaryStack
from sbilib.models.tabulated import TabulatedMembers

__all__ = [
    "ENSEMBLE_KINDS",
    "AffineFlowConfig",
    "Classifier",
    "ClassifierConfig",
    "ClassifierPair",
    "ClassifierStack",
    "ConditionalFlow",
    "Ensemble",
    "EvaluatedMembers",
    "FeatureScaling",
    "FeatureTransform",
    "FlowConfig",
    "FlowPair",
    "FlowStack",
    "FramedPair",
    "GenerativeEnsemble",
    "GenerativeModel",
    "HistogramPair",
    "LoadedModel",
    "LogitStandardize",
    "MaskedAutoregressiveFlow",
    "MixtureAutoregressive",
    "MixtureConfig",
    "QuantileBins",
    "QuantileConfig",
    "QuantileToNormal",
    "RealNVP",
    "SampledFile",
    "ScaledPair",
    "ScaledPairConfig",
    "ScalingConfig",
    "SplineAutoregressiveFlow",
    "SplineCouplingFlow",
    "SplineFlowConfig",
    "SummaryConfig",
    "SummaryStack",
    "TabulatedMembers",
    "TransformConfig",
    "TransformedConfig",
    "TransformedDensity",
    "density_loss",
    "load_model",
    "register_model",
    "sample_to_parquet",
    "save_model",
    "stack_models",
]
