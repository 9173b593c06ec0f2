"""How much memory a stack will need, known before it is trained.

What a step keeps for the backward pass is measured on one ordinary model and one batch; a stack of ``M``
members needs ``M`` times that. Weights, gradients, moments and copies add a few times the size of the
weights.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from sbilib.training.loop import Loss

__all__ = ["available_bytes", "member_bytes"]

_COPIES_OF_WEIGHTS = 8
"""Weights, gradients, two moments, their update, average and best weights, and the model they came from."""
_TEMPORARIES = 2.0
"""Peak of a step over what it keeps: gradients of activations, and copies within operations."""
_SHARE = 0.6
"""Share of the free memory that a stack may plan with."""


def member_bytes(model: nn.Module, loss: Loss, batch: tuple[Tensor, ...]) -> int:
    """Bytes that one member adds to a stack, training data apart.

    Args:
        model: an ordinary model of the architecture.
        loss: its loss.
        batch: a training batch of the size that will be used.

    Example:
        >>> from sbilib.models import Classifier, ClassifierConfig
        >>> from sbilib.training import classifier_loss
        >>> model = Classifier(ClassifierConfig(hidden=(1000,)), seed=1)
        >>> batch = torch.zeros(512, 2), torch.zeros(512, 1), torch.zeros(512)
        >>> 2 * 4 * 512 * 1000 < member_bytes(model, classifier_loss, batch) < 20 * 4 * 512 * 1000
        True
    """
    kept: dict[int, int] = {}

    def remember(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(remember, lambda tensor: tensor):
        value = loss(model, *batch)  # its graph keeps what was saved alive, so no address occurs twice
    del value
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    return int(_COPIES_OF_WEIGHTS * weights + _TEMPORARIES * sum(kept.values()))


def available_bytes(device: torch.device) -> int:
    """Bytes of memory on ``device`` that a stack may plan with.

    >>> available_bytes(torch.device("cpu")) > 2**20
    True
    """
    if device.type == "cuda":
        return int(_SHARE * torch.cuda.mem_get_info(device)[0])
    return int(_SHARE * _free_host_bytes())


def _free_host_bytes() -> int:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    return 4 * 2**30  # systems that do not say: plan modestly
