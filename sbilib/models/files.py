"""Model files: weights as safetensors, with the kind and configuration of the model in the header.

A file holds all that is needed to rebuild the model, runs no code when read, and is written under a temporary
name first, so an interrupted save never leaves half a file in place of a good one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from sbilib.atomic import write_atomically
from sbilib.errors import CheckpointError, ParameterError
from sbilib.models.classifier import Classifier, ClassifierConfig, ClassifierPair
from sbilib.models.flow import ConditionalFlow, FlowConfig
from sbilib.models.pair import FlowPair

__all__ = ["LoadedModel", "load_model", "register_model", "save_model"]

FORMAT = "sbilib-model-1"


class ModelConfig(Protocol):
    """A configuration that can be written as JSON."""

    def to_dict(self) -> dict[str, Any]:
        """Fields by name, ready for JSON."""
        ...


@dataclass(frozen=True)
class _Kind:
    read_config: Callable[[dict[str, Any]], Any]
    build: Callable[[Any], nn.Module]


_KINDS: dict[str, _Kind] = {}


def register_model(
    kind: str, read_config: Callable[[dict[str, Any]], Any], build: Callable[[Any], nn.Module]
) -> None:
    """Make a kind of model known to :func:`save_model` and :func:`load_model`.

    Args:
        kind: the ``kind`` attribute of the model's class.
        read_config: makes its configuration from the dictionary that ``config.to_dict()`` gave.
        build: makes the model, with any weights, from the configuration.
    """
    _KINDS[kind] = _Kind(read_config, build)


register_model(ClassifierPair.kind, ClassifierConfig.from_dict, ClassifierPair.from_config)
register_model(Classifier.kind, ClassifierConfig.from_dict, partial(Classifier, seed=0))
register_model(ConditionalFlow.kind, FlowConfig.from_dict, ConditionalFlow)
register_model(FlowPair.kind, FlowConfig.from_dict, FlowPair.from_config)


class LoadedModel(NamedTuple):
    """What a model file holds."""

    model: nn.Module
    """The model, with its weights, on the CPU."""
    metadata: dict[str, Any]
    """What the caller of :func:`save_model` added."""


def save_model(path: str | Path, model: nn.Module, metadata: Mapping[str, Any] | None = None) -> None:
    """Write a model with its configuration.

    Args:
        path: where to; its folder must exist. An existing file is replaced only once the new one is complete.
        model: a module of a registered kind, with attributes ``kind`` and ``config``.
        metadata: anything else to keep, as far as JSON can hold it.

    Raises:
        ParameterError: if the model is of no registered kind, or the metadata cannot be written as JSON.
        CheckpointError: if the file cannot be written.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> save_model(Path(folder.name) / "flow.safetensors", ConditionalFlow(FlowConfig.modern()))
        >>> load_model(Path(folder.name) / "flow.safetensors").model.config == FlowConfig.modern()
        True
        >>> folder.cleanup()
    """
    kind = getattr(model, "kind", None)
    if kind not in _KINDS:
        raise ParameterError(
            f"model must be one of the kinds {', '.join(sorted(_KINDS))}, got {type(model).__name__}; "
            "add its kind with register_model"
        )
    config: Any = model.config
    try:
        header = {
            "format": FORMAT,
            "kind": str(kind),
            "config": json.dumps(config.to_dict()),
            "metadata": json.dumps(dict(metadata or {})),
        }
    except TypeError as error:
        raise ParameterError(f"metadata must be plain JSON values: {error}; convert them first") from error
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write_atomically(Path(path), save(tensors, metadata=header), error=CheckpointError)


def load_model(path: str | Path) -> LoadedModel:
    """Read a model that :func:`save_model` wrote.

    Raises:
        CheckpointError: if the file is missing, damaged, or holds an unknown kind or configuration of model.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no model file at {path}; check the path, or train and save the model first")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a complete safetensors file ({error}); delete it and save the model again"
        ) from error
    if header.get("format") != FORMAT or header.get("kind") not in _KINDS:
        raise CheckpointError(
            f"{path} should hold a model of kind {', '.join(sorted(_KINDS))}, "
            f"got format {header.get('format')!r} and kind {header.get('kind')!r}; "
            "use a file written by save_model"
        )
    kind = _KINDS[header["kind"]]
    try:
        model = kind.build(kind.read_config(json.loads(header["config"])))
        metadata = json.loads(header["metadata"])
        if any(tensor.dtype == torch.float64 for tensor in tensors.values()):
            model.double()
        model.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"the configuration or weights in {path} do not fit this version of sbilib ({error}); "
            "train and save the model again"
        ) from error
    return LoadedModel(model, metadata)
