"""Messages that need more than a bad argument: a broken installation, another torch, tensors on other devices."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

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
"""
REBUILD = "`pip install --no-build-isolation --force-reinstall --no-deps --no-cache-dir .`"
MINOR = ".".join(torch.__version__.split(".")[:2])


def last_line_of_import(folder, built_for, before=""):
    """What Python says last of importing the package, in a copy that was built for this torch, or for None."""
    package = folder / "alrp_cuda"
    shutil.copytree(Path(alrp_cuda.__file__).parent, package, copy_function=os.symlink)
    record = package / "_C.torch"
    record.unlink(missing_ok=True)
    if built_for:
        record.write_text(built_for)
    command = [sys.executable, "-c", before + "import alrp_cuda; print(alrp_cuda.__file__)"]
    paths = os.pathsep.join([str(folder), *(path for path in sys.path if path)])
    environment = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    return (done.stdout or done.stderr).strip().splitlines()[-1]


def stopped(built_for, why):
    return (
        f"ImportError: alrp_cuda's kernels, built for {built_for}, cannot be used with torch {torch.__version__}: {why}; "
        f"rebuild them in the source tree by {REBUILD}"
    )


@pytest.mark.slow
@pytest.mark.parametrize("built_for", ["1.13.1", "2.1.0", f"{MINOR}0.0+cpu", "3.0.0a0+git0123abc"])
def test_kernels_built_for_another_torch_are_refused_before_they_are_loaded(tmp_path, built_for):
    why = "torch's C++ interface holds within a minor version at best"
    assert last_line_of_import(tmp_path, built_for, WITHOUT_KERNELS) == stopped(f"torch {built_for}", why)


@pytest.mark.slow
@pytest.mark.parametrize("patch", ["0", "99+cpu", "99.dev20990101+cu130"])
def test_kernels_built_for_another_patch_of_this_torch_are_taken(tmp_path, patch):
    assert last_line_of_import(tmp_path, f"{MINOR}.{patch}") == str(tmp_path / "alrp_cuda" / "__init__.py")


def test_kernels_that_cannot_be_loaded_are_named_with_what_to_do(tmp_path):
    built_for = f"{MINOR}.99+cu999"
    why = "libc10.so: cannot open shared object file"
    assert last_line_of_import(tmp_path, built_for, WITHOUT_KERNELS) == stopped(f"torch {built_for}", why)


def test_a_source_tree_that_was_not_built_says_so(tmp_path):
    (tmp_path / "tree").mkdir()
    line = f"ImportError: alrp_cuda's kernels are not built: build them in the source tree by {REBUILD}"
    assert last_line_of_import(tmp_path / "tree", None) == line


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
