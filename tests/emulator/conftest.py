"""The emulated device's own tests: skipped where it cannot run."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import missing_requirement

KERNELS = Path(__file__).parent / "kernels"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: long tests, not part of every run (pytest -m full)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    reason = missing_requirement()
    chosen = "full" in (config.getoption("-m") or "")
    for item in items:
        if here not in item.path.parents:
            continue
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
        elif item.get_closest_marker("full") and not chosen:
            item.add_marker(pytest.mark.skip(reason="long: choose it with -m full"))
