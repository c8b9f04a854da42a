"""How the site is built: `python -m sphinx -W -n -b html docs OUT`, without a network."""

import os
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]
os.environ.update(NO_COLOR="1", COLUMNS="88")

from luma_async import __version__  # noqa: E402 - the checkout's, not an installed one

project = "luma_async"
author = "The luma_async maintainers"
release = version = __version__
language = "en"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "command_line",
    "statuses",
    "public",
    "reference",
]
exclude_patterns = ["_build", "_ext", "reference/examples.md"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
highlight_language = "text"
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True
toc_object_entries = False

# Names of others (asyncio, aiohttp, msgspec, …) have no page here, and an inventory of theirs would
# need a network. They stay plain text; a name of ours that leads nowhere is still an error.
nitpick_ignore_regex = [
    ("py:.*", r"(?!luma_async\b).*"),
    (
        "py:.*",
        r"luma_async\..*\.(DurationCounts|PullConsumer|_T)",
    ),  # ours, named in signatures, and not public
]

html_theme = "furo"
pygments_dark_style = "github-dark"
html_title = f"luma_async {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#0b6e6e",
        "color-brand-content": "#0b6e6e",
        "color-brand-visited": "#0b6e6e",
    },
    "dark_css_variables": {
        "color-brand-primary": "#5ec8c0",
        "color-brand-content": "#5ec8c0",
        "color-brand-visited": "#5ec8c0",
    },
}


def _one_front(app: object, page: str, source: list[str]) -> None:
    """Lead to the site's front page where a page leads to the README."""
    source[0] = source[0].replace("](../README.md)", "](index.md)")
    source[0] = source[0].replace("](../../README.md)", "](../index.md)")


def setup(app: Any) -> None:
    """Join the build."""
    app.connect("source-read", _one_front)
