"""``python tests/smoke.py``: the installed package works, with nothing of its source tree to help it."""

import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import torch

import alrp_cuda


def check_files() -> None:
    """It is the installed one, typed, and brings nothing but itself."""
    installed = Path(sysconfig.get_path("platlib")).resolve()
    package = Path(alrp_cuda.__file__).resolve().parent
    assert package.parent == installed, f"alrp_cuda comes from {package}, not from {installed}"
    assert (package / "py.typed").is_file(), "py.typed is not installed"
    distribution = metadata.distribution("alrp_cuda")
    assert (package / "_C.torch").read_text() == torch.__version__, "the torch it was built for is not recorded"
    tops = {file.parts[0] for file in distribution.files or ()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"alrp_cuda"}, f"other files are installed: {sorted(tops)}"
    assert any(file.name == "LICENSE" for file in distribution.files or ()), "no licence is installed"
    assert distribution.version == alrp_cuda.__version__


def check_command() -> None:
    """``python -m alrp_cuda`` tells what is installed."""
    told = subprocess.run([sys.executable, "-m", "alrp_cuda"], capture_output=True, text=True, check=True).stdout
    assert alrp_cuda.__version__ in told, told
    assert torch.__version__ in told, told
    print(told, end="")


def check_loss() -> None:
    """aLRP Loss on the CPU, forward and backward, is that of the reference."""
    torch.manual_seed(0)
    labels = (torch.rand(1000) < 0.02).long()
    scores, errors = torch.randn(1000), torch.rand(int(labels.sum()))
    results = []
    for module in (alrp_cuda, alrp_cuda.reference):
        leaves = scores.clone().requires_grad_(), errors.clone().requires_grad_()
        out = module.alrp_loss(leaves[0], labels, leaves[1])
        results.append((out.cls, out.loc, *torch.autograd.grad(out.cls + out.loc, leaves)))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-7)


if __name__ == "__main__":
    check_files()
    check_command()
    check_loss()
    print("the installed package works")
