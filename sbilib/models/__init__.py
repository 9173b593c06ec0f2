"""Networks that learn densities and ratios: conditional flows and classifiers, and their files."""

from sbilib.models.classifier import Classifier, ClassifierConfig, ClassifierPair
from sbilib.models.ensemble import ENSEMBLE_KINDS, Ensemble, EvaluatedMembers
from sbilib.models.files import LoadedModel, load_model, register_model, save_model
from sbilib.models.flow import ConditionalFlow, FlowConfig
from sbilib.models.framed import FramedPair
from sbilib.models.histogram import HistogramPair, QuantileBins
from sbilib.models.pair import FlowPair
from sbilib.models.scaling import FeatureScaling, ScaledPair, ScaledPairConfig, ScalingConfig
from sbilib.models.stack import ClassifierStack, FlowStack, stack_models
from sbilib.models.summary import SummaryConfig, SummaryStack
from sbilib.models.tabulated import TabulatedMembers

__all__ = [
    "ENSEMBLE_KINDS",
    "Classifier",
    "ClassifierConfig",
    "ClassifierPair",
    "ClassifierStack",
    "ConditionalFlow",
    "Ensemble",
    "EvaluatedMembers",
    "FeatureScaling",
    "FlowConfig",
    "FlowPair",
    "FlowStack",
    "FramedPair",
    "HistogramPair",
    "LoadedModel",
    "QuantileBins",
    "ScaledPair",
    "ScaledPairConfig",
    "ScalingConfig",
    "SummaryConfig",
    "SummaryStack",
    "TabulatedMembers",
    "load_model",
    "register_model",
    "save_model",
    "stack_models",
]
