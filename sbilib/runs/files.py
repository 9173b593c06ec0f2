"""Write files so that an interrupt, an error or a full disk never leaves half of one behind."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from sbilib.errors import StudyError

__all__ = ["check_writable", "write_text_atomically"]


def write_text_atomically(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` in one step: the file is either the old one or the whole new one.

    The text goes to a temporary file in the same folder, is flushed to the disk, and then takes the
    place of ``path`` with :func:`os.replace`, which POSIX defines as atomic.

    Args:
        path: the file to write; missing parent folders are made.
        text: its new content, written as UTF-8.

    Raises:
        StudyError: if the disk is full or the folder cannot be written; the old file is untouched.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a", "note.txt")
    ...     write_text_atomically(path, "done")
    ...     path.read_text(), os.listdir(path.parent)
    ('done', ['note.txt'])
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise StudyError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another folder "
            f"({'the earlier file is unchanged' if path.exists() else 'nothing was written'})"
        ) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


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
