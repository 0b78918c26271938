"""What users install: the source distribution holds what the repository holds, and its wheel works on its own."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

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
    assert {name.split("/")[0] for name in names} == {"alrp_cuda", f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"}

    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    libraries = sysconfig.get_path("purelib", vars={"base": tmp_path / "venv"})
    # A path file of another environment is not followed, so an editable alrp_cuda of this one stays out of sight.
    Path(libraries, "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    subprocess.run([python, *pip, "install", "--no-index", "--no-deps", wheel], check=True, cwd=tmp_path, env=clean)
    subprocess.run([python, ROOT / "tests" / "smoke.py"], check=True, cwd=tmp_path, env=clean)
