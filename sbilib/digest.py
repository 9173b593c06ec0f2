"""Digest of the code behind a stored result, so that a result of older code is never taken for a new one."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

__all__ = ["code_digest"]


@cache
def code_digest(*patterns: str) -> str:
    """SHA-256 of the modules that match ``patterns``; comments, docstrings and layout do not count.

    Args:
        patterns: glob patterns relative to the package, for instance ``"models/*.py"``.

    Example:
        >>> len(code_digest("errors.py")), code_digest("errors.py") == code_digest("components.py")
        (64, False)
    """
    digest = hashlib.sha256()
    root = Path(__file__).parent
    for pattern in patterns:
        for path in sorted(root.glob(pattern)):
            digest.update(ast.dump(_without_docstrings(ast.parse(path.read_text("utf-8")))).encode())
    return digest.hexdigest()


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [part for part in body if not _is_text(part)]  # type: ignore[attr-defined]
    return tree


def _is_text(statement: ast.AST) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
