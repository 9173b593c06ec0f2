"""The directive ``{parameter-catalog}``: the parameters of every study, read from the notebooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from sbilib.errors import SbilibError
from sbilib.runs import parameter_catalog_markdown


class ParameterCatalog(SphinxDirective):
    """Insert one section with one table for each study."""

    def run(self) -> list[nodes.Node]:
        """Parse the generated Markdown in place.

        Raises:
            ExtensionError: if there is no study, or one of them breaks a convention.
        """
        root = Path(self.env.srcdir)
        for source in [*root.glob("notebooks/*.md"), *root.glob("notebooks/params/*.yml")]:
            self.env.note_dependency(str(source))
        try:
            markdown = parameter_catalog_markdown(root)
        except SbilibError as error:
            raise ExtensionError(f"the parameter catalog cannot be made: {error}") from error
        if not markdown.strip():
            raise ExtensionError("the parameter catalog is empty: there are no studies in notebooks/")
        container = nodes.section()
        lines = StringList(markdown.splitlines(), source=self.env.docname)
        self.state.nested_parse(lines, 0, container, match_titles=True)
        # Sections join the page as they are parsed, so the style sheet knows the page by this mark.
        return [nodes.container(classes=["parameter-catalog"]), *container.children]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension with Sphinx."""
    app.add_directive("parameter-catalog", ParameterCatalog)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
