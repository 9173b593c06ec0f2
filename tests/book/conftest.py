"""One build of the book for all tests of its pages."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("_config.yml", "_toc.yml", "benchmarks", "book", "notebooks", "sbilib", "requirements.lock")

sys.path.insert(0, str(ROOT / "book" / "_ext"))


@pytest.fixture(scope="session")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built pages; every warning of the build is an error."""
    folder = tmp_path_factory.mktemp("book")
    ignore = shutil.ignore_patterns("__pycache__", "_build")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignore)
        else:
            shutil.copy(source, folder / name)
    tool = Path(sys.executable).with_name("jupyter-book")
    command = [str(tool), "build", str(folder), "-n", "-W", "--keep-going", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return folder / "_build" / "html"
