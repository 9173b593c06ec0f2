"""Keep finished tables, so that a study that was killed continues where it stopped.

They lie in the same folder as the checkpoints of trainings.  The name of a file contains a digest of what was
asked for and of the code that answers, so a table of older code is never taken for a new one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping

import pandas as pd
from pyarrow.lib import ArrowInvalid

from sbilib.digest import code_digest
from sbilib.studies.pairs import cache_folder
from sbilib.studies.sweep_files import as_parquet, write_atomically

__all__ = ["kept_table"]

_CODE_THAT_DECIDES = ("likelihood/*.py", "problems/*.py", "studies/coverage*.py", "studies/parabolic.py")


def kept_table(name: str, facts: Mapping[str, object], compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The table made by ``compute``, from the disk if the same was asked for before.

    Args:
        name: start of the file name.
        facts: everything that decides the content, apart from the code.
        compute: makes the table.

    Returns:
        The table; a file that cannot be read is made anew.

    Raises:
        CheckpointError: if the table cannot be written, for instance because the disk is full.

    >>> import os, tempfile, unittest.mock
    >>> with tempfile.TemporaryDirectory() as folder, unittest.mock.patch.dict(
    ...     os.environ, SBILIB_CACHE=folder
    ... ):
    ...     first = kept_table("demo", {"seed": 1}, lambda: pd.DataFrame({"x": [1]}))
    ...     again = kept_table("demo", {"seed": 1}, lambda: pd.DataFrame({"x": [2]}))
    >>> again.x.tolist()
    [1]
    """
    text = json.dumps(
        {"facts": facts, "code": code_digest(*_CODE_THAT_DECIDES)}, sort_keys=True, default=repr
    )
    path = cache_folder() / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.parquet"
    if path.exists():
        try:
            return pd.read_parquet(path)
        except (ArrowInvalid, OSError):  # damage shows as the one or the other, depending on its place
            path.unlink(missing_ok=True)
    table = compute()
    write_atomically(path, as_parquet(table))
    return table
