"""The Sphinx extensions of the book: what they show, and how they fail."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import nbformat
import pytest
import sbilib_launch
import sbilib_provenance
from docutils.utils import new_document
from sphinx.errors import ExtensionError

from sbilib.runs import Provenance, Status

RECORD = Provenance(
    study="gaussian-toys",
    set="smoke",
    parameters={"seed": 3, "case": "large"},
    overrides=["seed"],
    seed=3,
    source_sha256="a" * 64,
    code_sha256="b" * 64,
    library_sha256="c" * 64,
    modules_sha256={},
    lock_sha256=None,
    pins={},
    git_commit="0123456789abcdef",
    git_dirty=True,
    device="CPU <2 threads>",
    started_at="2026-01-01T00:00:00+00:00",
    wall_time_s=41.7,
    versions={"torch": "2.11.0"},
)


def test_record_is_shown_whole_and_escaped():
    block = sbilib_provenance.render(RECORD, Status("gaussian-toys", "current", (), RECORD))
    for fact in (
        "seed = 3",
        "CPU &lt;2 threads&gt;",
        "42 s",
        "torch 2.11.0",
        "uncommitted changes",
        "a" * 16,
    ):
        assert fact in block
    assert "sbilib run gaussian-toys --set smoke -p seed=3" in block
    assert "have not changed since" in block


def test_stale_page_says_why():
    status = Status("gaussian-toys", "stale", ("sbilib/models changed",), RECORD)
    block = sbilib_provenance.render(replace(RECORD, git_dirty=False), status)
    assert "sbilib/models changed" in block
    assert "have not changed since" not in block
    assert "uncommitted" not in block


def test_published_notebook_without_a_record_stops_the_build(tmp_path):
    path = tmp_path / "book" / "runs" / "gaussian-toys.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(nbformat.v4.new_notebook(), path)
    env = SimpleNamespace(docname="book/runs/gaussian-toys", doc2path=lambda name: str(path))
    app = SimpleNamespace(env=env, srcdir=str(tmp_path))
    with pytest.raises(ExtensionError, match=r"gaussian-toys\.ipynb carries no complete record"):
        sbilib_provenance.add_provenance(app, new_document("page"))


def test_pages_that_are_no_runs_get_no_record():
    document = new_document("page")
    app = SimpleNamespace(env=SimpleNamespace(docname="book/index"))
    sbilib_provenance.add_provenance(app, document)
    assert not document.children


@pytest.mark.parametrize("address", ["", "https://example.org/someone/book"])
def test_binder_is_offered_only_when_the_repository_is_known(address):
    options = {"repository_url": address, "repository_branch": "main"}
    app = SimpleNamespace(config=SimpleNamespace(html_theme_options=options))
    context = {"header_buttons": []}
    sbilib_launch.show_repository(app, app.config)
    sbilib_launch.add_buttons(app, "book/runs/gaussian-toys", "page.html", context, None)
    links = [button["url"] for button in context["header_buttons"][0]["buttons"] if button["type"] == "link"]
    assert len(links) == bool(address)
    assert options["use_repository_button"] is bool(address)
    if address:
        assert links[0] == (
            "https://mybinder.org/v2/git/https%3A%2F%2Fexample.org%2Fsomeone%2Fbook/main"
            "?urlpath=lab%2Ftree%2Fbook%2Fruns%2Fgaussian-toys.ipynb"
        )
