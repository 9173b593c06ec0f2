"""Buttons at the head of study pages: copy the command that repeats the run, or open it on Binder.

Binder needs a public repository.  Its address stands in ``_config.yml`` under ``repository.url`` and nowhere
else; as long as it is empty, no button leads to a place that does not exist.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from sphinx.application import Sphinx
from sphinx.config import Config

RUNS = "book/runs/"
BINDER = "https://mybinder.org/v2/git"


def show_repository(app: Sphinx, config: Config) -> None:
    """Let the theme link to the repository once its address is known."""
    options = config.html_theme_options
    options["use_repository_button"] = bool(options.get("repository_url"))


def add_buttons(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Append the group of buttons to the header of a study page."""
    if not pagename.startswith(RUNS):
        return
    study = Path(pagename).name
    buttons = [copy_button(study, name) for name in ("smoke", "standard", "full")]
    options = app.config.html_theme_options
    if address := options.get("repository_url"):
        buttons.append(binder_button(address, options.get("repository_branch") or "main", pagename))
    context["header_buttons"].append(
        {
            "type": "group",
            "tooltip": "Run this study yourself",
            "icon": "fas fa-terminal",
            "label": "launch-buttons",
            "buttons": buttons,
        }
    )


def copy_button(study: str, set_name: str) -> dict[str, str]:
    """A button that copies the command for one parameter set."""
    command = f"sbilib run {study} --set {set_name} --out out"
    return {
        "type": "javascript",
        "javascript": f"sbilibCopy(this, '{command}')",
        "text": f"Copy the command: {set_name}",
        "icon": "fas fa-copy",
        "tooltip": command,
        "label": f"copy-{set_name}",
    }


def binder_button(address: str, branch: str, pagename: str) -> dict[str, str]:
    """A link that opens the published notebook on Binder, which installs ``environment.yml``."""
    path = quote(f"lab/tree/{pagename}.ipynb", safe="")
    return {
        "type": "link",
        "url": f"{BINDER}/{quote(address, safe='')}/{quote(branch, safe='')}?urlpath={path}",
        "text": "Open on Binder",
        "icon": "fas fa-rocket",
        "tooltip": "Open this notebook on Binder",
        "label": "binder",
    }


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension with Sphinx."""
    app.connect("config-inited", show_repository)
    app.connect("html-page-context", add_buttons, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
