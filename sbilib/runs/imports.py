"""Which modules of the library a notebook runs, found from its import statements without running anything.

A name imported from a room (``from sbilib.likelihood import fit``) is followed to the module that defines it,
and from there on through the imports of that module, also those inside functions.  So a change in a module
that a study never touches does not make the study look out of date.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

__all__ = ["notebook_code", "used_modules"]


def notebook_code(notebook: Any) -> list[str]:
    """The code cells of a notebook, lines for IPython alone (``%magic``, ``!shell``) left out."""
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return [
        "\n".join("pass" if line.startswith(("%", "!")) else line for line in cell.splitlines())
        for cell in cells
    ]


def used_modules(code: Iterable[str], package: Path) -> list[Path]:
    """Modules of the package that pieces of code import, directly or through one another.

    Args:
        code: Python sources.
        package: the folder of the package.

    Returns:
        Files, sorted.  The ``__init__.py`` of a room is among them only if something that it defines itself
        is used.

    Raises:
        SyntaxError: if a piece is not Python.
    """
    found: set[Path] = set()
    waiting = [path for piece in code for path in _imported(ast.parse(piece), package)]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting.extend(_imported(_parsed(path), package))
    return sorted(found)


def _parsed(path: Path) -> ast.Module:
    return _parse_once(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1000)
def _parse_once(path: Path, modified: int) -> ast.Module:
    """The syntax tree of a file; the time of its last change keeps an old one from being used."""
    return ast.parse(path.read_text(encoding="utf-8"))


def _imported(tree: ast.Module, package: Path) -> Iterator[Path]:
    """Files that the import statements of one source lead to."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _whole(alias.name, package)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            for alias in node.names:
                yield from _name(node.module, alias.name, package)


def _place(module: str, package: Path) -> Path | None:
    """Folder of a package or file of a module; None if it does not belong to ours."""
    first, *rest = module.split(".")
    if first != package.name:
        return None
    folder = package.joinpath(*rest)
    return folder if folder.is_dir() else folder.with_suffix(".py")


def _whole(module: str, package: Path) -> Iterator[Path]:
    """Everything that ``import module`` makes reachable."""
    place = _place(module, package)
    if place is None:
        return
    if place.is_dir():
        yield from sorted(place.rglob("*.py"))
    elif place.exists():
        yield place


def _name(module: str, name: str, package: Path) -> Iterator[Path]:
    """The file behind ``from module import name``."""
    place = _place(module, package)
    if place is None:
        return
    if not place.is_dir():
        if place.exists():
            yield place
        return
    if name == "*":
        yield from sorted(place.rglob("*.py"))
        return
    below = place / name
    if below.is_dir() or below.with_suffix(".py").exists():
        yield from _whole(f"{module}.{name}", package)
        return
    face = place / "__init__.py"
    if not face.exists():
        return
    for node in _parsed(face).body:
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    yield from _name(node.module, alias.name, package)
                    return
    yield face
