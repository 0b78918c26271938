"""The examples in the docstrings and on the pages of docs/ say the truth."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import alrp_cuda

MODULES = [
    f"{package.__name__}.{m.name}"
    for package in (alrp_cuda, alrp_cuda.distributed, alrp_cuda.metrics)
    for m in pkgutil.iter_modules(package.__path__)
    if not m.name.startswith("_") and not m.ispkg
]
PAGES = ["compat.md", "distributed.md", "framework.md", "metrics.md", "self-balancing.md"]
DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("name", ["alrp_cuda", "alrp_cuda.distributed", "alrp_cuda.metrics", *MODULES])
def test_examples_in_docstrings(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


@pytest.mark.parametrize("page", PAGES)
def test_examples_on_pages(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)
    assert blocks
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, page, page, 0)
    assert test.examples
    assert doctest.DocTestRunner().run(test).failed == 0
