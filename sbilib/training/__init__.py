"""Fit a model to a stream of batches, on any device, with exact resume."""

from sbilib.training.device import resolve_device
from sbilib.training.loop import TrainConfig, TrainingResult, train
from sbilib.training.memory import available_bytes, member_bytes
from sbilib.training.schedule import learning_rate_at
from sbilib.training.stack import StackResult, train_stack
from sbilib.training.streams import (
    ClassifierBatches,
    FlowBatches,
    PolynomialClassifierLoss,
    StackedBatches,
    classifier_loss,
    flow_loss,
)

__all__ = [
    "ClassifierBatches",
    "FlowBatches",
    "PolynomialClassifierLoss",
    "StackResult",
    "StackedBatches",
    "TrainConfig",
    "TrainingResult",
    "available_bytes",
    "classifier_loss",
    "flow_loss",
    "learning_rate_at",
    "member_bytes",
    "resolve_device",
    "train",
    "train_stack",
]
