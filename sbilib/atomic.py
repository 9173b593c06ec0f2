"""Write a file so that an interrupt, an error or a full disk never leaves half of one behind."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from sbilib.errors import DataError, SbilibError

__all__ = ["write_atomically"]


def write_atomically(path: Path, content: bytes, *, error: type[SbilibError] = DataError) -> None:
    """Write ``content`` to ``path`` in one step: the file is either the old one or the whole new one.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and then take the place of
    ``path`` with :meth:`pathlib.Path.replace`, which POSIX defines as atomic.

    Args:
        path: the file to write; missing parent folders are made.
        content: its new content.
        error: the exception to raise.

    Raises:
        SbilibError: the given ``error``, if the disk is full or the folder cannot be written; the old file is
            untouched.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "a", "note.txt")
        ...     write_atomically(path, b"done")
        ...     path.read_bytes(), os.listdir(path.parent)
        (b'done', ['note.txt'])
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        temporary = None
    except OSError as cause:
        raise error(
            f"cannot write {path}: {cause.strerror or cause}; free some space or choose another folder "
            f"({'the earlier file is unchanged' if path.exists() else 'nothing was written'})"
        ) from cause
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
