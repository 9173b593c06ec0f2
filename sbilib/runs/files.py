"""Write files so that an interrupt, an error or a full disk never leaves half of one behind."""

from __future__ import annotations

import tempfile
from pathlib import Path

from sbilib.atomic import write_atomically
from sbilib.errors import StudyError

__all__ = ["check_writable", "write_text_atomically"]


def write_text_atomically(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` in one step: the file is either the old one or the whole new one.

    Args:
        path: the file to write; missing parent folders are made.
        text: its new content, written as UTF-8.

    Raises:
        StudyError: if the disk is full or the folder cannot be written; the old file is untouched.

    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a", "note.txt")
    ...     write_text_atomically(path, "done")
    ...     path.read_text(), os.listdir(path.parent)
    ('done', ['note.txt'])
    """
    write_atomically(path, text.encode("utf-8"), error=StudyError)


def check_writable(folder: Path) -> None:
    """Make ``folder`` if needed and see that a file can be written there, before a long run starts.

    Raises:
        StudyError: if it is not a folder or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StudyError(
            f"cannot write into {folder}: {error.strerror or error}; choose another folder with --out"
        ) from error
