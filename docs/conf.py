"""How Sphinx builds the docs: ``make docs``."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

import vaurien  # noqa: E402

project = "Vaurien"
author = "The Vaurien developers"
copyright = author  # noqa: A001
version = release = vaurien.__version__

extensions = ["sphinx.ext.autodoc", "vaurien_docs"]
exclude_patterns = ["_build", "benchmark-table.rst"]
nitpicky = True
default_role = "code"
highlight_language = "none"

html_theme = "furo"
html_title = f"Vaurien {release}"
html_copy_source = False

autodoc_typehints = "none"
autodoc_member_order = "bysource"
