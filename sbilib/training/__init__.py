"""Fit a model to a stream of batches, on any device, with exact resume."""

from sbilib.training.device import resolve_device
from sbilib.training.loop import TrainConfig, TrainingResult, train
from sbilib.training.schedule import learning_rate_at
from sbilib.training.streams import (
    ClassifierBatches,
    FlowBatches,
    PolynomialClassifierLoss,
    classifier_loss,
    flow_loss,
)

__all__ = [
    "ClassifierBatches",
    "FlowBatches",
    "PolynomialClassifierLoss",
    "TrainConfig",
    "TrainingResult",
    "classifier_loss",
    "flow_loss",
    "learning_rate_at",
    "resolve_device",
    "train",
]
