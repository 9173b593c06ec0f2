"""Fixtures: a tiny repository with one study, and one run of it that many tests look at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .tiny_study import make_repository


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A fresh repository with the study ``coin``, never run."""
    return make_repository(tmp_path / "repository")


@pytest.fixture(scope="session")
def published_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The published run of ``coin`` at ``smoke``, made while the user has a broken kernel of their own."""
    from sbilib.runs import load_study, publish_study

    root = make_repository(tmp_path_factory.mktemp("published"))
    foreign = tmp_path_factory.mktemp("jupyter") / "kernels" / "python3"
    foreign.mkdir(parents=True)
    spec = {"argv": ["/nowhere/python"], "display_name": "Mine", "language": "python"}
    (foreign / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_DATA_DIR", str(foreign.parents[1]))
        patch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
        path = publish_study(load_study("coin", root), "smoke", progress=False)
    return path.read_text(encoding="utf-8")


@pytest.fixture
def published(repository: Path, published_text: str) -> Path:
    """A fresh repository in which ``coin`` was published; the path of the published notebook."""
    path = repository / "book" / "runs" / "coin.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text(published_text, encoding="utf-8")
    return path
