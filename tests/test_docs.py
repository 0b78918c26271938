"""The examples in the docstrings and on the pages of docs/ say the truth."""

import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

import alrp_cuda

PACKAGE = Path(alrp_cuda.__file__).parent
# Of the files: to walk packages is to import them, and MMDetection must not be before MMCV has operators.
MODULES = sorted(
    ".".join(path.with_suffix("").relative_to(PACKAGE.parent).parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if path.name == "__init__.py" or not path.name.startswith("_")
)
# Where users find names: all of __all__, else what a module defines.
PUBLIC = [
    "alrp_cuda",
    "alrp_cuda.metrics",
    "alrp_cuda.compat",
    "alrp_cuda.distributed",
    "alrp_cuda.integrations.rfdetr",
    "alrp_cuda.integrations.torchvision",
    "alrp_cuda.integrations.transformers",
    "alrp_cuda.integrations.ultralytics",
]
PAGES = [
    "beyond-detection.md",
    "compat.md",
    "distributed.md",
    "framework.md",
    "metrics.md",
    "self-balancing.md",
    "torch-compile.md",
    "troubleshooting.md",
    "your-own-detector.md",
]
DOCS = Path(__file__).parents[1] / "docs"


def load(name):
    if name.startswith("alrp_cuda.integrations."):
        pytest.importorskip("torchvision")
    if name.startswith("alrp_cuda.integrations.mmdet"):
        pytest.importorskip("mmdet")
        importlib.import_module("mmcv_operators").provide()  # before MMCV is imported, as test_mmdet.py needs it
    if name.startswith("alrp_cuda.integrations.ultralytics"):
        importlib.import_module("ultralytics_offline")
        pytest.importorskip("ultralytics")
    for framework in ("rfdetr", "transformers"):
        if name.startswith(f"alrp_cuda.integrations.{framework}"):
            pytest.importorskip(framework)
    return importlib.import_module(name)


def public_objects(module):
    names = getattr(module, "__all__", None) or [
        name for name, value in vars(module).items() if name[0] != "_" and getattr(value, "__module__", "") == module.__name__
    ]
    return [(name, getattr(module, name)) for name in names if not name.startswith("__")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    result = doctest.testmod(load(name))
    assert result.failed == 0


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_an_example_that_runs(name):
    objects = public_objects(load(name))
    assert objects
    for public, value in objects:
        examples = doctest.DocTestFinder(recurse=False).find(value, public)
        assert examples, f"{name}.{public} has no docstring"
        assert examples[0].examples, f"{name}.{public} has no example"
        assert not any(doctest.SKIP in example.options for example in examples[0].examples), f"{name}.{public} hides its example"


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_method_says_what_it_does(name):
    for public, value in public_objects(load(name)):
        if not inspect.isclass(value):
            continue
        for method, member in inspect.getmembers(value, lambda member: callable(member) or isinstance(member, property)):
            ours = getattr(getattr(member, "fget", member), "__module__", "") or ""
            if method[0] != "_" and ours.startswith("alrp_cuda"):
                assert inspect.getdoc(member), f"{name}.{public}.{method} has no docstring"


@pytest.mark.parametrize("name", PUBLIC)
def test_the_api_page_names_everything_public(name):
    page = (DOCS / "api.md").read_text()
    if name != "alrp_cuda":
        assert re.search(rf"^\.\. automodule:: {name}$", page, re.MULTILINE), f"{name} is not on docs/api.md"
        return
    for public, value in public_objects(load(name)):
        directive = "automodule:: alrp_cuda." if inspect.ismodule(value) else "auto(class|function):: "
        assert re.search(rf"^\.\. {directive}{public}$", page, re.MULTILINE), f"{public} is not on docs/api.md"


@pytest.mark.parametrize("page", PAGES)
def test_examples_on_pages(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (DOCS / page).read_text()
    if "import torchvision" in text or "from torchvision" in text:
        pytest.importorskip("torchvision")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert blocks
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, page, page, 0)
    assert test.examples
    assert doctest.DocTestRunner().run(test).failed == 0


def test_the_way_of_a_call_names_what_there_is():
    """Each row of docs/a-call.md: files, and names that they define or hold."""
    rows = re.findall(r"^\| (`[^|]*`) \| (`[^|]*`) \|", (DOCS / "a-call.md").read_text(), re.MULTILINE)
    assert len(rows) >= 9
    for files, names in rows:
        first, *others = re.findall(r"`([^`]+)`", files)
        path = (PACKAGE.parent if first.startswith("alrp_cuda/") else DOCS.parent) / first  # the package may be installed
        paths = [path, *(path.with_name(other) for other in others)]
        text = "".join(each.read_text() for each in paths)
        for name in re.findall(r"`([^`]+)`", names):
            assert re.search(rf"\b{name}\b", text), f"{name} is not in {files}"
