"""One PTX instruction, and the table of translators by opcode."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import UnsupportedPTX
from ..parser import WIDTH, split_operands

if TYPE_CHECKING:
    from .function import FunctionTranslator
    from .scope import Scope

_INSTRUCTION = re.compile(r"(?:@(?P<not>!?)\s*(?P<guard>[\w$%]+)\s+)?(?P<opcode>[\w.:]+)\s*(?P<operands>.*)$", re.S)

ROUNDING = ("rn", "rm", "rp", "rz")
_PACKED_INTEGERS = ("u16x2", "s16x2")


@dataclass
class Instruction:
    line: int
    text: str
    guard: str | None  # predicate register, "!" in front where negated
    opcode: str
    modifiers: list[str]  # all parts after the opcode, types included
    operands: list[str]
    operand_text: str
    scope: Scope

    @classmethod
    def parse(cls, line: int, text: str, scope: Scope) -> Instruction:
        m = _INSTRUCTION.match(text)
        if not m:
            raise UnsupportedPTX(f"line {line}: `{text}` is no instruction")
        opcode, *modifiers = m["opcode"].split(".")
        if opcode in ("min", "max") and modifiers[-1] == "relu":  # nvcc also writes max.s32.relu
            modifiers = ["relu", *modifiers[:-1]]
        guard = m["not"] + m["guard"] if m["guard"] else None
        operands = split_operands(m["operands"])
        return cls(line, text, guard, opcode, modifiers, operands, m["operands"].strip(), scope)

    @property
    def type(self) -> str:
        return self.modifiers[-1]

    def has(self, *names: str) -> bool:
        return any(name in self.modifiers for name in names)

    def one_of(self, *names: str) -> str | None:
        """The first modifier that is among `names`."""
        return next((m for m in self.modifiers if m in names), None)

    def require(self, *names: str) -> str:
        found = self.one_of(*names)
        if found is None:
            raise UnsupportedPTX("expected one of ." + " .".join(names))
        return found

    @property
    def rounding(self) -> str | None:
        return self.one_of(*ROUNDING)

    @property
    def vector(self) -> int:
        v = self.one_of("v2", "v4", "v8")
        return int(v[1:]) if v else 1


Translator = Callable[["FunctionTranslator", Instruction], None]


@dataclass
class _Entry:
    translate: Translator
    modifiers: frozenset[str]


_TABLE: dict[str, _Entry] = {}


def translates(opcodes: str, modifiers: str = "") -> Callable[[Translator], Translator]:
    """Register a translator. Any modifier that is not listed is refused; types and .vN always pass."""

    def register(function: Translator) -> Translator:
        for opcode in opcodes.split():
            _TABLE[opcode] = _Entry(function, frozenset(modifiers.split()))
        return function

    return register


def translator_of(ins: Instruction) -> Translator:
    entry = _TABLE.get(ins.opcode)
    if entry is None:
        raise UnsupportedPTX(f"opcode {ins.opcode}")
    unknown = [m for m in ins.modifiers if not _known(ins.opcode, m, entry)]
    if unknown:
        raise UnsupportedPTX("modifier ." + " .".join(unknown))
    return entry.translate


def _known(opcode: str, modifier: str, entry: _Entry) -> bool:
    if modifier in entry.modifiers or modifier in WIDTH or modifier in _PACKED_INTEGERS:
        return True
    if re.fullmatch(r"v[248]", modifier):
        return True
    # Cache hints change no value.
    is_memory = opcode in ("ld", "ldu", "st", "atom", "red", "cp")
    return is_memory and re.fullmatch(r"L[12]::\w+", modifier) is not None
