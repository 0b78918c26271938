"""The examples in the docstrings say the truth."""

import doctest
import importlib
import pkgutil

import pytest

import alrp_cuda

MODULES = [f"alrp_cuda.{m.name}" for m in pkgutil.iter_modules(alrp_cuda.__path__) if not m.name.startswith("_") and not m.ispkg]


@pytest.mark.parametrize("name", ["alrp_cuda", *MODULES])
def test_examples_in_docstrings(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0
