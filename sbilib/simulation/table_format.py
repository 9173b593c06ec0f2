"""What differs between the tables of one kind of data set and another: columns, rounding, checks, bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbilib.simulation.schema import Rows

__all__ = ["TableFormat"]


@dataclass(frozen=True)
class TableFormat:
    """The tables of one kind of data set.

    Args:
        sample: name of the kind, also that of its folder.
        columns: names of the columns, in their order.
        splits: names of the disjoint parts of a data set.
        command: the ``sbilib`` command that makes such a data set.
        loaders: functions of `sbilib.problems` that read public files of such events.
        check: called with a name for messages and events; it raises DataError for events that cannot be.
        rounded: gives events as they are stored, ``(n, columns)`` in float32.
        encoding: options of `pyarrow.parquet.write_table`.
    """

    sample: str
    columns: tuple[str, ...]
    splits: tuple[str, ...]
    command: str
    loaders: tuple[str, ...]
    check: Callable[[str, Rows], Rows]
    rounded: Callable[[Rows], NDArray[np.float32]]
    encoding: Mapping[str, Any]

    @property
    def hint(self) -> str:
        """What to do about a file that is missing or wrong."""
        return f"copy the file again from where it came, or make the data anew with `sbilib {self.command}`"
