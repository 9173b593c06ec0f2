"""The built book: readable offline, by everyone, with nothing that leads nowhere."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup

from sbilib.runs import load_studies
from tests.book.conftest import ROOT

pytestmark = pytest.mark.book

RESOURCES = (("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src"), ("source", "src"))
GENERATED = {"search.html", "genindex.html", "prf-prf.html"}


@cache
def soup(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def pages(html: Path) -> list[Path]:
    return sorted(html.rglob("*.html"))


def study_pages(html: Path) -> list[Path]:
    return sorted((html / "book" / "runs").glob("*.html"))


def test_every_page_of_the_contents_is_built(html):
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text())
    names = [contents["root"], *(c["file"] for part in contents["parts"] for c in part["chapters"])]
    missing = [name for name in names if not (html / f"{name}.html").is_file()]
    assert not missing
    assert (html / "index.html").is_file()


def test_no_page_loads_anything_from_the_network(html):
    loaded = [
        (page.name, tag[attribute])
        for page in pages(html)
        for name, attribute in RESOURCES
        for tag in soup(page).find_all(name)
        if re.match(r"(https?:)?//", tag.get(attribute, ""))
        and not (name == "link" and set(tag.get("rel", [])) & {"canonical"})
    ]
    assert not loaded
    named = [page.name for page in pages(html) if "unpkg.com" in str(soup(page)) or "cdn." in str(soup(page))]
    assert not named


def test_no_style_sheet_loads_anything_from_the_network(html):
    loaded = [
        sheet.name
        for sheet in html.rglob("*.css")
        if re.search(
            r"(url\(|@import)\s*[\"']?(https?:)?//", sheet.read_text(encoding="utf-8", errors="replace")
        )
    ]
    assert not loaded


def test_formulas_are_set_by_an_installed_mathjax(html):
    page = html / "book" / "theory" / "signal-ratio.html"
    scripts = [tag["src"] for tag in soup(page).find_all("script", src=True) if "mathjax" in tag["src"]]
    assert len(scripts) == 1
    assert (page.parent / urlsplit(scripts[0]).path).resolve().is_file()
    assert list((html / "_static" / "mathjax").rglob("*.woff"))


def test_every_image_has_an_alt_text(html):
    bare = [
        (page.name, image["src"])
        for page in pages(html)
        for image in soup(page).select("main img")
        if len(image.get("alt", "").strip()) < 15 or image["alt"].endswith((".png", ".svg"))
    ]
    assert not bare


def test_every_output_image_is_a_figure_with_a_caption(html):
    bare = []
    for page in study_pages(html):
        for image in soup(page).select(".cell_output img"):
            figure = image.find_parent("figure")
            caption = figure.select_one("figcaption .caption-text") if figure else None
            if caption is None or len(caption.get_text(strip=True)) < 30:
                bare.append((page.name, image["src"]))
    assert not bare


def test_every_internal_link_leads_somewhere(html):
    dead = []
    for page in pages(html):
        if page.name in GENERATED:
            continue
        for link in soup(page).select("main a[href], nav a[href]"):
            parts = urlsplit(link["href"])
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if not target.exists():
                dead.append((page.name, link["href"]))
            elif parts.fragment and target.suffix == ".html":
                anchor = unquote(parts.fragment)
                if not soup(target).find(attrs={"id": anchor}) and not soup(target).find(
                    attrs={"name": anchor}
                ):
                    dead.append((page.name, link["href"]))
    assert not dead


def test_every_study_page_says_where_its_numbers_come_from(html):
    assert study_pages(html)
    for page in study_pages(html):
        block = soup(page).select_one("details.provenance")
        assert block is not None, page.name
        names = {cell.get_text() for cell in block.select("th")}
        assert {"Parameters", "Seed", "Device", "Wall time", "Started", "Versions", "Commit"} <= names
        assert f"sbilib run {page.stem} --set " in block.get_text()


def test_every_study_page_offers_a_download_and_the_command(html):
    for page in study_pages(html):
        downloads = [
            link["href"]
            for link in soup(page).select("a.dropdown-item[href]")
            if link["href"].endswith(".ipynb")
        ]
        assert downloads, page.name
        assert (page.parent / downloads[0]).resolve().is_file()
        clicks = [button.get("onclick", "") for button in soup(page).select("button.dropdown-item")]
        assert any(f"sbilib run {page.stem} --set smoke" in click for click in clicks)


def test_catalog_lists_every_parameter_of_every_study(html):
    catalog = soup(html / "book" / "catalog.html")
    # Sphinx sets three dots as an ellipsis.
    rows = {
        tuple(cell.get_text().replace("…", "...") for cell in row.select("td")[:2])
        for row in catalog.select("tr")
    }
    for study in load_studies(ROOT):
        for parameter in study.parameters:
            assert (parameter.name, parameter.meaning) in rows, (study.name, parameter.name)
