"""Checkpoints of a training: one safetensors file with a digest of its own content.

The file is written beside its final name and moved into place, so a full disk or an interrupt never leaves a
damaged checkpoint where a good one was.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sbilib.errors import CheckpointError

__all__ = ["read_checkpoint", "write_checkpoint"]


def write_checkpoint(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write ``tensors`` and JSON-serializable ``facts`` to ``path`` in one atomic step.

    Raises:
        CheckpointError: if the file cannot be written, for instance because the disk is full.
    """
    # One owner for each block of memory: safetensors refuses tensors that share it.
    contents = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    metadata = {"facts": json.dumps(facts, sort_keys=True)}
    metadata["sha256"] = _digest(contents, metadata["facts"])
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        save_file(contents, temporary, metadata=metadata)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot write checkpoint {path}: {error}; free some space or choose another folder "
            "(the previous checkpoint, if any, is untouched)"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint back: its tensors (on the CPU) and its facts.

    Raises:
        CheckpointError: if the file is truncated, altered, or not a checkpoint of this library.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        facts = metadata["facts"]
        intact = metadata["sha256"] == _digest(tensors, facts)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"checkpoint {path} cannot be read ({type(error).__name__}: {error}); "
            "it is truncated or not a checkpoint: delete it to start afresh"
        ) from error
    if not intact:
        raise CheckpointError(
            f"checkpoint {path} does not match its own digest; it was altered: delete it to start afresh"
        )
    return tensors, json.loads(facts)


def _digest(tensors: dict[str, Tensor], facts: str) -> str:
    digest = hashlib.sha256(facts.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).numpy().tobytes())
    return digest.hexdigest()
