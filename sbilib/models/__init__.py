"""Networks that learn densities and ratios: conditional flows and classifiers, and their files."""

from sbilib.models.classifier import Classifier, ClassifierConfig, ClassifierPair
from sbilib.models.files import LoadedModel, load_model, register_model, save_model
from sbilib.models.flow import ConditionalFlow, FlowConfig
from sbilib.models.pair import FlowPair

__all__ = [
    "Classifier",
    "ClassifierConfig",
    "ClassifierPair",
    "ConditionalFlow",
    "FlowConfig",
    "FlowPair",
    "LoadedModel",
    "load_model",
    "register_model",
    "save_model",
]
