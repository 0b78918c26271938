"""What a name means where it stands: registers, variables and labels, by nested `{ }`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field


def c_name(name: str) -> str:
    """A C++ identifier for a PTX name ($ and % are legal in PTX)."""
    return re.sub(r"[^\w]", "_", name.replace("%", "").replace("$", "S_"))


@dataclass
class Register:
    name: str  # in C++
    size: int  # bytes
    type: str


@dataclass
class Symbol:
    space: str
    address: str  # C++ expression, uint64_t


@dataclass
class Scope:
    parent: Scope | None = None
    number: int = 0
    names: dict[str, Register | Symbol] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)  # label -> basic block
    tables: dict[str, list[str]] = field(default_factory=dict)  # .branchtargets

    def find(self, name: str) -> Register | Symbol | None:
        scope: Scope | None = self
        while scope:
            if name in scope.names:
                return scope.names[name]
            scope = scope.parent
        return None

    def label(self, name: str) -> int:
        scope: Scope | None = self
        while scope:
            if name in scope.labels:
                return scope.labels[name]
            scope = scope.parent
        raise KeyError(f"label {name}")

    def table(self, name: str) -> list[str]:
        scope: Scope | None = self
        while scope:
            if name in scope.tables:
                return scope.tables[name]
            scope = scope.parent
        raise KeyError(f"branch targets {name}")

    def c_register(self, name: str) -> str:
        return f"r{self.number or ''}_{c_name(name)}"
