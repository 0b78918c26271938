"""What users install: the source distribution holds what the repository holds, its wheel works on its own, and torch stays."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
LEFT_OUT = (".ci/", ".gitignore")
pytestmark = pytest.mark.skipif(not (ROOT / "alrp_cuda").exists(), reason="tests of an installed package, apart from its source")


@pytest.fixture(scope="module")
def source_distribution(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sdist")
    command = [sys.executable, "setup.py", "--quiet", "egg_info", "--egg-base", directory, "sdist", "--dist-dir", directory]
    subprocess.run(command, cwd=ROOT, check=True)
    (archive,) = directory.glob("*.tar.gz")
    return archive


def git_files(*options):
    """Files of the repository that are there."""
    listed = subprocess.run(["git", "ls-files", "-z", *options], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name for name in listed.split("\0") if name and (ROOT / name).exists()}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_source_distribution_holds_what_the_repository_holds(source_distribution):
    with tarfile.open(source_distribution) as archive:
        held = {name.partition("/")[2] for name in archive.getnames() if archive.getmember(name).isfile()}
    tracked = {name for name in git_files() if not name.startswith(LEFT_OUT)}
    assert tracked - held == set()
    generated = {name for name in held if name.startswith("alrp_cuda.egg-info/")} | {"PKG-INFO", "setup.cfg"}
    assert held - tracked - generated <= git_files("--others", "--exclude-standard"), "files that git ignores"


def test_no_requirement_can_replace_torch(source_distribution):
    """Isolated builds would bring one of their own, and a version that is required would replace the one that is there."""
    build_system = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]
    assert [name for name in build_system["requires"] if "torch" in name] == []
    with tarfile.open(source_distribution) as archive:
        (information,) = (name for name in archive.getnames() if name.count("/") == 1 and name.endswith("/PKG-INFO"))
        metadata = Parser().parsestr(archive.extractfile(information).read().decode())
    assert metadata.get_all("Requires-Dist") == ["torch", "numpy"]
    assert "Requires-Dist" not in metadata.get_all("Dynamic", []), "depends on where it is built"


def refusal(tmp_path, module, code):
    """What setup.py says and stops with, where ``module`` is another one."""
    (tmp_path / f"{module}.py").write_text(code)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "setup.py", "egg_info"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    return done.stderr.strip()


INSTALL = 'pip install torch "setuptools>=77" ninja && pip install --no-build-isolation .'


def test_a_build_that_sees_no_torch_stops_with_the_line_to_type(tmp_path):
    assert refusal(tmp_path, "torch", "raise ModuleNotFoundError(\"No module named 'torch'\")") == (
        "alrp_cuda builds against the torch of your environment, and this build sees none (No module named 'torch'): it is not "
        f"installed, or the build is isolated from it. Type, in your environment:\n{INSTALL}"
    )


@pytest.mark.parametrize("found", ["2.10.1+cu128", "1.13.1"])
def test_a_build_with_an_older_torch_than_is_supported_stops_with_the_line_to_type(tmp_path, found):
    assert refusal(tmp_path, "torch", f"__version__ = {found!r}") == (
        f"alrp_cuda takes torch 2.11 or newer, found {found}. For the newest one, type:\n"
        f"{INSTALL.replace('install', 'install --upgrade', 1)}"
    )


def test_a_build_with_an_older_setuptools_than_is_needed_stops_with_the_line_to_type(tmp_path):
    said = refusal(tmp_path, "setuptools", "__version__ = '65.5.0'; setup = print")
    assert said == f"alrp_cuda builds with setuptools 77 or newer, found 65.5.0. Type:\n{INSTALL}"


@pytest.mark.full
def test_wheel_of_the_source_distribution_works_without_the_source_tree(source_distribution, tmp_path):
    """Built without a network, installed into an environment that has the dependencies alone."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"ALRP_CUDA": "0"}
    pip = ["-m", "pip", "--quiet", "--disable-pip-version-check"]
    wheels = tmp_path / "wheels"
    build = [sys.executable, *pip, "wheel", "--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", wheels]
    subprocess.run([*build, source_distribution], check=True, cwd=tmp_path, env=clean)
    (wheel,) = wheels.iterdir()
    names = zipfile.ZipFile(wheel).namelist()
    assert zipfile.ZipFile(wheel).read("alrp_cuda/_C.torch").decode() == torch.__version__
    assert {name.split("/")[0] for name in names} == {"alrp_cuda", f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"}

    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    libraries = sysconfig.get_path("purelib", vars={"base": tmp_path / "venv"})
    # A path file of another environment is not followed, so an editable alrp_cuda of this one stays out of sight.
    Path(libraries, "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    subprocess.run([python, *pip, "install", "--no-index", "--no-deps", wheel], check=True, cwd=tmp_path, env=clean)
    subprocess.run([python, ROOT / "tests" / "smoke.py"], check=True, cwd=tmp_path, env=clean)
