"""A file is either the old one or the whole new one, whatever goes wrong while it is written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sbilib.errors import StudyError
from sbilib.runs.files import check_writable, write_text_atomically


def _fail(number: int) -> None:
    raise OSError(number, os.strerror(number))


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "run.ipynb"
    write_text_atomically(path, "old")
    monkeypatch.setattr(os, step, lambda *_: _fail(errno.ENOSPC))
    with pytest.raises(StudyError, match=r"No space left on device.*free some space.*unchanged"):
        write_text_atomically(path, "new" * 1000)
    assert path.read_text(encoding="utf-8") == "old"
    assert os.listdir(tmp_path) == ["run.ipynb"]


def test_interrupt_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "run.ipynb"
    write_text_atomically(path, "old")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_text_atomically(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    assert os.listdir(tmp_path) == ["run.ipynb"]


def test_folder_that_is_a_file_is_refused_before_a_run(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("", encoding="utf-8")
    with pytest.raises(StudyError, match=r"cannot write into .*out.*--out"):
        check_writable(tmp_path / "out")
