"""Checks of single instructions whose effect is not that of a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from .. import EmulatorError, LaunchResult, Module, Schedule
from .cases import complaints_of_ptxas, with_header

ORDERS = ("forward", "reverse", "random")


def module(text: str) -> Module:
    """The module, which ptxas also takes, and of which everything is supported"""
    text = with_header(text)
    assert not complaints_of_ptxas(text)
    result = Module(text)
    assert result.unsupported == {}
    return result


def launch(m: Module, kernel: str, grid: Any, block: Any, arguments: list[Any], shared: int = 0, **schedule: Any) -> LaunchResult:
    return m.launch(kernel, grid, block, arguments, shared=shared, schedule=Schedule(**schedule), check=False)


def check(name: str, ok: Any, message: str = "") -> None:
    assert np.all(ok), f"{name}: {message}"


def expect_error(name: str, action: Callable[[], Any], *words: str) -> None:
    with pytest.raises(EmulatorError) as error:
        action()
    assert all(w in str(error.value) for w in words), f"{name}: {error.value}"
