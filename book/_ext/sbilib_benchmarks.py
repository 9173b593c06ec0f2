"""The directive ``{benchmark-table}``: a table of measured numbers, read from ``benchmarks/results``.

The argument is the name of a benchmark, ``:rows:`` the place of the rows in its file, and each line of the
content one column: its header, the place of its value in a row, and optionally a format, separated by bars::

    ```{benchmark-table} search_limits
    :rows: results
    Model | name
    Limits | n_limits
    All, ours [s] | seconds | .1f
    One, pyhf [s] | pyhf_seconds/0 | .0f
    ```

Rows are a list, or the mappings in a mapping, with their keys as ``name``.  ``:where:`` keeps the rows with
one value, for instance ``task = sampling``, or without it (``!=``).  A place that ends in a question mark
may be missing or empty.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

RESULTS = "benchmarks/results"


class Column(NamedTuple):
    """One column of a table."""

    header: str
    place: str
    form: str


class BenchmarkTable(SphinxDirective):
    """Insert a table, and the machine it was measured on."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar[dict[str, Any]] = {
        "rows": directives.unchanged_required,
        "where": directives.unchanged_required,
    }

    def run(self) -> list[nodes.Node]:
        """Read the file and parse the table in place.

        Raises:
            ExtensionError: if the file, the rows or a value are not there.
        """
        name = self.arguments[0]
        path = Path(self.env.srcdir) / RESULTS / f"{name}.json"
        self.env.note_dependency(str(path))
        columns = [column_of(line) for line in self.content if line.strip()]
        try:
            results = json.loads(path.read_text())
            rows = chosen_rows(results, self.options.get("rows", ""), self.options.get("where"))
            lines = [*table_lines(rows, columns), "", machine(name, results)]
        except (OSError, ValueError, LookupError) as error:
            raise ExtensionError(f"{self.env.docname}: no table of benchmark {name!r}: {error}") from error
        container = nodes.container(classes=["benchmark-table"])
        self.state.nested_parse(StringList(lines, source=self.env.docname), 0, container)
        return [container]


def column_of(line: str) -> Column:
    """The column of one line of the content."""
    header, place, *form = (part.strip() for part in line.split("|"))
    return Column(header, place, form[0] if form else "")


def value_at(record: Any, place: str) -> Any:
    """What is at a place such as ``tables/published flow/rows`` or ``ratio/0``."""
    for key in filter(None, place.split("/")):
        if isinstance(record, Mapping) and key in record:
            record = record[key]
        elif isinstance(record, Sequence) and not isinstance(record, str) and key.isdigit():
            record = record[int(key)]
        else:
            known = ", ".join(record) if isinstance(record, Mapping) else type(record).__name__
            raise LookupError(f"there is no {key!r} among {known}")
    return record


def chosen_rows(results: Any, place: str, where: str | None) -> list[Mapping[str, Any]]:
    """The rows at a place, those of a mapping with their key as ``name``."""
    found = value_at(results, place)
    if isinstance(found, Mapping):
        found = [{**row, "name": key} for key, row in found.items() if isinstance(row, Mapping)]
    if where is not None:
        left, _, value = (part.strip() for part in where.partition("="))
        key = left.removesuffix("!").strip()
        found = [row for row in found if (str(value_at(row, key)) == value) == (key == left)]
    if not found:
        raise LookupError(f"no rows at {place!r}" + (f" where {where}" if where else ""))
    return list(found)


def table_lines(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> list[str]:
    """A Markdown table; numbers to the right."""
    if not columns:
        raise LookupError("no columns are named")
    cells = [[_cell(row, column) for column in columns] for row in rows]
    rules = ["---:" if column.form else ":---" for column in columns]
    return [_line([column.header for column in columns]), _line(rules), *map(_line, cells)]


def machine(name: str, results: Mapping[str, Any]) -> str:
    """Where and how it was measured, in one sentence."""
    found = results["environment"]
    threads = f"{found['threads']} thread" + ("s" if found["threads"] > 1 else "")
    quick = " (a quick run)" if results.get("quick") else ""
    return (
        f"Measured on {found['processor']}, {threads}, torch {found['torch']}, "
        f"Python {found['python']}{quick}. To repeat it: `python -m benchmarks.{name}`."
    )


def _cell(row: Mapping[str, Any], column: Column) -> str:
    place = column.place.removesuffix("?")
    try:
        value = value_at(row, place)
    except LookupError:
        value = None
    if value is None and place == column.place:
        raise LookupError(f"a row has nothing at {place!r}: {dict(row)}")
    return "–" if value is None else format(value, column.form)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension with Sphinx."""
    app.add_directive("benchmark-table", BenchmarkTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
