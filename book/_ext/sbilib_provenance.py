"""Say at the foot of every study page where its numbers come from, and whether they are up to date."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import nbformat
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from sbilib.errors import SbilibError
from sbilib.runs import Provenance, Status, format_value, published_status, read_provenance

RUNS = "book/runs/"


def add_provenance(app: Sphinx, doctree: nodes.document) -> None:
    """Append the record of the run to a page made of a published notebook.

    Raises:
        ExtensionError: if the notebook carries no complete record.
    """
    docname = app.env.docname
    if not docname.startswith(RUNS):
        return
    path = Path(app.env.doc2path(docname))
    try:
        record = read_provenance(nbformat.read(path, as_version=4), f"{docname}.ipynb")
    except SbilibError as error:
        raise ExtensionError(str(error)) from error
    root = Path(app.srcdir)
    for source in sources(root, record.study):
        app.env.note_dependency(str(source))
    page = next(iter(doctree.findall(nodes.section)), doctree)
    page += nodes.raw("", render(record, published_status(root, record.study)), format="html")


def sources(root: Path, study: str) -> list[Path]:
    """The files that decide whether a run is current."""
    notebook = [root / "notebooks" / f"{study}.md", root / "notebooks" / "params" / f"{study}.yml"]
    return [*notebook, root / "requirements.lock", *sorted((root / "sbilib").rglob("*.py"))]


def render(record: Provenance, status: Status) -> str:
    """The record as a collapsible block of HTML."""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{value}</td></tr>' for name, value in facts(record)
    )
    command = f"sbilib run {record.study} --set {record.set}" + "".join(
        f" -p {name}={format_value(record.parameters[name])}" for name in record.overrides
    )
    return (
        '<details class="provenance"><summary>'
        f"Where these numbers come from: <code>{escape(record.study)}</code> at "
        f"<code>{escape(record.set)}</code>, {escape(duration(record.wall_time_s))}</summary>"
        f"<p>{currency(status)}</p>"
        '<div class="provenance-table"><table>'
        f"<tbody>{rows}</tbody></table></div>"
        f"<p>To repeat this run:</p><pre><code>{escape(command)}</code></pre></details>"
    )


def currency(status: Status) -> str:
    """One sentence on whether the page still matches its sources."""
    if status.state == "current":
        return "The study, the library and the pinned packages have not changed since this run."
    reasons = "; ".join(escape(reason) for reason in status.reasons)
    return f"<strong>Changed since this run:</strong> {reasons}."


def duration(seconds: float) -> str:
    """A wall time in the unit a reader would choose.

    >>> duration(41.7), duration(754.0), duration(9000.0)
    ('42 s', '12.6 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def facts(record: Provenance) -> list[tuple[str, str]]:
    """Names and HTML values of everything the record says, for a reader."""
    commit = record.git_commit or "not known"
    if record.git_dirty:
        commit += " with uncommitted changes"
    parameters = "<br>".join(
        f"<code>{escape(name)} = {escape(format_value(value))}</code>"
        for name, value in record.parameters.items()
    )
    versions = ", ".join(f"{escape(name)} {escape(version)}" for name, version in record.versions.items())
    hashes: dict[str, str | None] = {
        "notebook": record.source_sha256,
        "library": record.library_sha256,
        "lock": record.lock_sha256,
    }
    shown = "<br>".join(f"{name} <code>{(value or 'none')[:16]}</code>" for name, value in hashes.items())
    return [
        ("Parameter set", f"<code>{escape(record.set)}</code>"),
        ("Parameters", parameters),
        ("Seed", str(record.seed)),
        ("Device", escape(record.device)),
        ("Wall time", escape(duration(record.wall_time_s))),
        ("Started", escape(record.started_at)),
        ("Versions", versions),
        ("Commit", f"<code>{escape(commit)}</code>"),
        ("SHA-256 (first 16 digits)", shown),
    ]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension with Sphinx."""
    app.connect("doctree-read", add_provenance)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
