"""Choosing the device to compute on."""

from __future__ import annotations

import torch

from sbilib.errors import DeviceError, check_choice

__all__ = ["resolve_device"]


def resolve_device(name: str) -> torch.device:
    """The device called ``name``: ``"cpu"``, ``"cuda"``, or ``"auto"`` (CUDA where there is one).

    Raises:
        DeviceError: if CUDA is asked for and this machine, or this build of torch, has none.

    Example:
        >>> resolve_device("cpu")
        device(type='cpu')
    """
    check_choice("device", name, ("auto", "cpu", "cuda"))
    present = torch.cuda.is_available()
    if name == "cuda" and not present:
        raise DeviceError(
            f"device 'cuda' was asked for, but torch {torch.__version__} finds no CUDA device; "
            "pass device='cpu' or 'auto', or install a CUDA build of torch on a machine with a GPU"
        )
    return torch.device("cuda" if present and name != "cpu" else "cpu")
