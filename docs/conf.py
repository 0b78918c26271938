"""The site that ``make docs`` builds: the pages of this folder, README as the first of them, and the API from the docstrings."""

from typing import Any

from sphinx.application import Sphinx

import alrp_cuda

project = "alrp_cuda"
version = release = alrp_cuda.__version__
html_title = f"{project} {version}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"

# References to headings as web pages of repositories make them: [words](page.md#a-heading).
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_mock_imports = ["rfdetr", "transformers", "ultralytics"]  # which only tests of their own have
napoleon_use_rtype = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 100

# A :func:`...` that names nothing is a warning, thus an error; types of others are not ours to resolve without a network.
nitpicky = True
# Nor are annotations, which name the module that a class is written in.
nitpick_ignore_regex = [
    ("py:.*", r"(?!alrp_cuda).*"),
    ("py:class", r"alrp_cuda\.(outputs|ranks|balance|metrics\.\w+|distributed\.\w+)\.\w+"),
    ("py:class", r"alrp_cuda\.integrations\.(rfdetr\.T|torchvision\.M|transformers\.M|ultralytics\.Y)"),
]


def skip_described(app: Sphinx, what: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    """Fields of named tuples are described once, under Attributes of the class."""
    return True if type(member).__name__ == "_tuplegetter" else None


def setup(app: Sphinx) -> None:
    app.connect("autodoc-skip-member", skip_described)
