"""Model files: what is saved comes back, and damage is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sbilib.errors import CheckpointError, ParameterError
from sbilib.models import ConditionalFlow, FlowConfig, FlowPair, load_model, save_model

SMALL = FlowConfig(n_transforms=2, hidden=8, n_bins=3, context_affine=True)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("build", [ConditionalFlow, FlowPair.from_config])
def test_a_saved_model_comes_back(tmp_path: Path, build: type[nn.Module], double: bool) -> None:
    model = build(SMALL, seed=5)
    if double:
        model.double()
    save_model(tmp_path / "model.safetensors", model, {"steps": 3, "note": "é"})
    loaded, metadata = load_model(tmp_path / "model.safetensors")
    assert type(loaded) is type(model)
    assert loaded.config == SMALL
    assert metadata == {"steps": 3, "note": "é"}
    for name, value in model.state_dict().items():
        assert loaded.state_dict()[name].dtype == value.dtype
        assert torch.equal(loaded.state_dict()[name], value)


@pytest.mark.parametrize("keep", [0, 5, 200, -10])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, ConditionalFlow(SMALL))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"not a complete safetensors file.*save the model again"):
        load_model(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no model file at .*absent\.safetensors"):
        load_model(tmp_path / "absent.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "tree"}, "kind 'tree'"),
        ({"format": "other"}, "format 'other'"),
        ({"config": json.dumps({"depth": 3})}, "no field depth"),
        ({"config": json.dumps({**SMALL.to_dict(), "hidden": 9})}, "do not fit"),
        ({"config": "{"}, "do not fit"),
    ],
)
def test_a_foreign_or_changed_header_is_refused(
    tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, ConditionalFlow(SMALL))
    header = {
        "format": "sbilib-model-1",
        "kind": "flow",
        "config": json.dumps(SMALL.to_dict()),
        "metadata": "{}",
    }
    save_file(load_file(path), path, metadata={**header, **changes})
    with pytest.raises(CheckpointError, match=message):
        load_model(path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, ConditionalFlow(SMALL, seed=1))
    before = path.read_bytes()

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(CheckpointError, match="No space left on device; free some space"):
        save_model(path, ConditionalFlow(SMALL, seed=2))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_saved_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="got Linear"):
        save_model(tmp_path / "model.safetensors", nn.Linear(1, 1))
    with pytest.raises(ParameterError, match="plain JSON"):
        save_model(tmp_path / "model.safetensors", ConditionalFlow(SMALL), {"when": Path()})
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot write"):
        save_model(tmp_path / "file" / "model.safetensors", ConditionalFlow(SMALL))
