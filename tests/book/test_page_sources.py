"""The sources of the book keep its conventions."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from sbilib.plotting import style
from tests.book.conftest import ROOT

PAGES = sorted((ROOT / "book").rglob("*.md"))
STUDIES = sorted((ROOT / "notebooks").glob("*.md"))
THEORY = sorted((ROOT / "book" / "theory").glob("*.md"))


def names(paths: list[Path]) -> list[str]:
    return [path.stem for path in paths]


def contents() -> list[str]:
    table = yaml.safe_load((ROOT / "_toc.yml").read_text())
    return [table["root"], *(chapter["file"] for part in table["parts"] for chapter in part["chapters"])]


def test_contents_list_every_page_once():
    written = [str(page.relative_to(ROOT).with_suffix("")) for page in PAGES]
    studies = [f"book/runs/{study.stem}" for study in STUDIES]
    assert sorted(contents()) == sorted([*written, *studies])


@pytest.mark.parametrize("page", [*THEORY, *STUDIES], ids=names([*THEORY, *STUDIES]))
def test_page_has_the_parts_a_reader_expects(page):
    text = page.read_text()
    assert re.search(r"^:::\{admonition\} At a glance$", text, re.MULTILINE)
    for promise in ("You will learn", "Before you start", "Time"):
        assert f"**{promise}" in text, promise
    assert re.search(r"^## Exercises$", text, re.MULTILINE)
    assert re.search(r"^## Where next$", text, re.MULTILINE)


@pytest.mark.parametrize("study", STUDIES, ids=names(STUDIES))
def test_study_ends_with_what_was_learned(study):
    heads = re.findall(r"^## (.+)$", study.read_text(), re.MULTILINE)
    for part in ("The question", "What we learned, and how far to trust it", "Exercises", "Where next"):
        assert part in heads, heads
    assert heads[-1] == "Where next"


@pytest.mark.parametrize("page", [*PAGES, *STUDIES], ids=names([*PAGES, *STUDIES]))
def test_every_exercise_has_a_solution(page):
    text = page.read_text()
    exercises = re.findall(r"\{exercise\}.*\n:label: (\S+)", text)
    solutions = re.findall(r"\{solution\} (\S+)", text)
    assert sorted(exercises) == sorted(solutions)
    assert len(re.findall(r"\{exercise\}", text)) == len(exercises), "an exercise without a label"


def test_every_glossary_term_is_used():
    glossary = (ROOT / "book" / "glossary.md").read_text()
    block = glossary.split("```{glossary}")[1].split("```")[0]
    terms = [line.strip().lower() for line in block.splitlines() if line.strip() and not line.startswith(" ")]
    used = set()
    for page in [*PAGES, *STUDIES]:
        for role in re.findall(r"\{term\}`([^`]+)`", page.read_text()):
            target = re.search(r"<([^>]+)>$", role)
            used.add((target.group(1) if target else role).lower())
    assert terms == sorted(terms), "keep the glossary in order"
    assert not set(terms) - used


@pytest.mark.parametrize("run", sorted((ROOT / "book" / "runs").glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_figure_was_drawn(run):
    """A figure shown before the notebook was told to draw leaves its name and no image."""
    for number, cell in enumerate(json.loads(run.read_text())["cells"]):
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            named = "".join(data.get("text/plain", "")).startswith(("<Figure", "Figure("))
            assert not named or any(kind.startswith("image/") for kind in data), f"cell {number}"


@pytest.mark.parametrize("run", sorted((ROOT / "book" / "runs").glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_output_image_has_a_caption_and_an_alt_text(run):
    for number, cell in enumerate(json.loads(run.read_text())["cells"]):
        images = [
            output
            for output in cell.get("outputs", [])
            if any(kind.startswith("image/") for kind in output.get("data", {}))
        ]
        assert len(images) <= 1, f"cell {number} shows {len(images)} images; one is a figure"
        if images:
            render = cell["metadata"].get("mystnb", {})
            assert len(render.get("figure", {}).get("caption", "")) > 30, f"cell {number} has no caption"
            assert re.fullmatch(r"fig-[a-z0-9-]+", render["figure"].get("name", "")), f"cell {number}"
            assert len(render.get("image", {}).get("alt", "")) > 15, f"cell {number} has no alt text"


@pytest.mark.parametrize("page", [*PAGES, *STUDIES], ids=names([*PAGES, *STUDIES]))
def test_every_image_in_the_text_has_an_alt_text(page):
    text = page.read_text()
    assert not re.search(r"!\[\s*\]\(", text)
    for body in re.findall(r"\{(?:figure|image)\} \S+\n((?::\w+:.*\n)*)", text):
        assert ":alt:" in body


def test_style_sheet_and_figures_share_their_colors():
    sheet = (ROOT / "book" / "_static" / "book.css").read_text()
    light = dict(re.findall(r"--sbilib-(\w+): (#\w{6});", sheet.split("}")[0]))
    assert {name: color.upper() for name, color in light.items()} == {
        "signal": style.SIGNAL_COLOR,
        "background": style.BACKGROUND_COLOR,
        "truth": style.TRUTH_COLOR,
        "flow": style.FLOW_COLOR,
        "classifier": style.CLASSIFIER_COLOR,
    }


def test_book_renders_stored_outputs_only():
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert config["execute"]["execute_notebooks"] == "off"
    assert config["only_build_toc_files"] is True
