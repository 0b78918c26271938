"""The package shows its types."""

from importlib import resources

import alrp_cuda


def test_package_is_marked_as_typed():
    assert resources.files(alrp_cuda).joinpath("py.typed").is_file()
