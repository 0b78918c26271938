"""The package shows its types: the stub of the extension is true to the built module."""

import subprocess
import sys
from importlib import resources

import pytest

import alrp_cuda


def test_package_is_marked_as_typed():
    assert resources.files(alrp_cuda).joinpath("py.typed").is_file()


def test_stub_of_the_extension_is_that_of_the_module(tmp_path):
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy.stubtest", "--concise", "alrp_cuda._C"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    # pybind11's classes have a metaclass of its own, which no stub can name.
    wrong = [line for line in told.stdout.splitlines() if not line.endswith("is inconsistent, metaclass differs")]
    assert not told.stderr, told.stderr
    assert all("Success" in line for line in wrong), told.stdout
