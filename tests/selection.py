"""Which cases of a parametrized test run: all of them, those in which every two settings meet, or every setting once."""

import dataclasses
import itertools
import zlib
from collections.abc import Hashable, Iterable
from typing import Any

import pytest

# Settings of these decide which code runs: the others are covered for each of them anew.
IMPLEMENTATIONS = ("backend", "algorithm", "losses", "values", "not_waiting")
CHOICES = {"few": 1, "pairs": 2, "all": None}  # how many settings meet


def settings_of(item: pytest.Item) -> dict[str, Hashable]:
    """The settings of a case by the names of its parameters; those of a dataclass, such as cases.Case, field by field."""
    callspec: Any = getattr(item, "callspec", None)
    settings: dict[str, Hashable] = {}
    for name, value in callspec.params.items() if callspec else ():
        if dataclasses.is_dataclass(value):
            settings |= {f"{name}.{field.name}": str(getattr(value, field.name)) for field in dataclasses.fields(value)}
        else:
            settings[name] = id(value)  # of the one object in the list of parameters
    return settings


def choose(items: Iterable[pytest.Item], together: int) -> set[pytest.Item]:
    """Cases of one test in which any ``together`` settings that meet in some case meet; the same ones on every run."""
    chosen = set()
    met: set[Hashable] = set()
    for item in sorted(items, key=lambda item: zlib.crc32(item.nodeid.encode())):  # neighbours have much in common
        settings = settings_of(item)
        place = tuple(settings.pop(name, None) for name in IMPLEMENTATIONS)
        meeting = {(place, *group) for group in itertools.combinations(settings.items(), min(together, len(settings)))}
        if not meeting <= met:
            met |= meeting
            chosen.add(item)
    return chosen
