"""Messages that need more than a bad argument: a broken installation, tensors on other devices."""

import os
import subprocess
import sys

import pytest
import torch

import alrp_cuda
from alrp_cuda import Errors, reference

WITHOUT_KERNELS = """
import importlib.abc, sys

class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "alrp_cuda._C":
            raise ImportError("libc10.so: cannot open shared object file")

sys.meta_path.insert(0, Hide())
import alrp_cuda
"""


def test_kernels_that_cannot_be_imported_are_named_with_what_to_do():
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_KERNELS], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths}
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last == (
        "ImportError: alrp_cuda's kernels could not be imported: build them with `pip install --no-build-isolation .` in the "
        f"source tree, with the torch you run ({torch.__version__}); libc10.so: cannot open shared object file"
    )


@pytest.mark.parametrize("loss", [alrp_cuda.error_driven_loss, reference.error_driven_loss])
def test_extras_on_another_device_are_named(loss):
    with pytest.raises(ValueError, match=r"^extras must be on the device of logits, cpu, got meta$"):
        loss(torch.zeros(2), torch.tensor([1, 0]), lambda ranks: Errors(ranks.n_fp), extras=torch.zeros(1, device="meta"))


@pytest.mark.parametrize("loss", [alrp_cuda.error_driven_loss, reference.error_driven_loss])
@pytest.mark.parametrize("name", ["value", "target"])
def test_terms_on_another_device_are_named(loss, name):
    def error_fn(ranks):
        return Errors(**({"value": ranks.n_fp} | {name: torch.zeros(1, device="meta")}))

    with pytest.raises(ValueError, match=rf"^{name} of error_fn must be on the device of logits, cpu, got meta$"):
        loss(torch.zeros(2), torch.tensor([1, 0]), error_fn)
