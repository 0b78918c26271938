"""The emulated device's own tests: skipped where it cannot run."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import missing_requirement

KERNELS = Path(__file__).parent / "kernels"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = missing_requirement()
    if not reason:
        return
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=reason))
