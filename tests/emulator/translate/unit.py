"""Some kernels of a PTX module, with the device functions they call -> one C++ translation unit."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

from ..errors import UnsupportedPTX
from ..parser import Function, Source, Variable
from . import arithmetic, compare, control, convert, memory, warp
from .function import FunctionTranslator
from .instruction import Instruction
from .scope import Symbol, c_name

FAMILIES = (arithmetic, compare, control, convert, memory, warp)  # imported for the opcodes they register

_GUARD_BYTES = 16  # never valid, after each static shared variable: an overrun does not reach the next one
_DYNAMIC_ALIGNMENT = 128
_BASE_STACK = 128 << 10


def mix(seed: int) -> int:
    """splitmix64: 64 bits that look random, different for each seed."""
    mask = (1 << 64) - 1
    z = seed * 0x9E3779B97F4A7C15 & mask
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
    z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
    return z ^ z >> 31


@dataclass
class Sites:
    """The instructions that messages can name, caches belong to, and counters tell apart."""

    texts: list[tuple[int, str, bool]] = field(default_factory=lambda: [(0, "?", False)])
    waits: set[int] = field(default_factory=set)  # ids of the instructions where a warp waits for memory
    _known: dict[int, int] = field(default_factory=dict)
    first_line: int = 1  # of the function that is translated: lines count from it, whatever stands before it in the file
    unknown: str = "sites[0]"

    def of(self, ins: Instruction) -> str:
        index = self._known.get(id(ins))
        if index is None:
            index = self._known[id(ins)] = len(self.texts)
            self.texts.append((ins.line - self.first_line + 1, ins.text, id(ins) in self.waits))
        return f"sites[{index}]"

    def definition(self) -> str:
        rows = [
            f"{{{json.dumps(text[:160])}, {line}, 0x{mix(i + (1 << 32)):x}ull, {int(waits)}}}"
            for i, (line, text, waits) in enumerate(self.texts)
        ]
        return f"static Site sites[] = {{{', '.join(rows)}}};"


@dataclass
class SharedLayout:
    """Where the static shared variables of one kernel lie."""

    offsets: dict[str, int] = field(default_factory=dict)
    variables: list[tuple[int, int]] = field(default_factory=list)  # offset, size
    end: int = 0

    def place(self, variable: Variable) -> None:
        alignment = max(variable.alignment, 16)
        offset = -(-self.end // alignment) * alignment
        self.offsets[variable.name] = offset
        self.variables.append((offset, variable.size))
        self.end = offset + variable.size + _GUARD_BYTES

    @property
    def dynamic_start(self) -> int:
        return -(-self.end // _DYNAMIC_ALIGNMENT) * _DYNAMIC_ALIGNMENT


def mentions(function: Function, name: str) -> bool:
    pattern = re.compile(r"(?<![\w$])" + re.escape(name) + r"(?![\w$])")
    return any(name in s.text and pattern.search(s.text) for s in function.body)


class UnitTranslator:
    """Translates the kernels called `names`; `errors` then says which could not be, and why."""

    def __init__(self, source: Source, names: list[str]):
        self.errors: dict[str, str] = {}
        self.sites = Sites()
        self._keys = 0
        self._order = {f.name: i for i, f in enumerate(source.functions)}
        self._functions = {f.name: f for f in source.functions}
        self.device_functions = {f.name for f in source.functions if not f.is_kernel}
        self.shared = shared_variables(source)
        self.variables = module_variables(source)
        self._variable_index = {v.name: i for i, v in enumerate(self.variables)}
        self.kernels = [self._functions[n] for n in names]
        self.helpers = self._reachable_functions()
        self._common = self._layout_of_helpers()
        self._layouts = {k.name: self._layout_of(k) for k in self.kernels}

    def _reachable_functions(self) -> list[Function]:
        found: dict[str, Function] = {}
        pending = list(self.kernels)
        while pending:
            caller = pending.pop()
            called = {
                name
                for s in caller.body
                if re.match(r"(@!?\S+\s+)?call", s.text)
                for name in re.findall(r"[\w$]+", s.text)
                if name in self.device_functions
            }
            for name in sorted(called - found.keys()):
                found[name] = self._functions[name]
                pending.append(found[name])
        return list(found.values())

    # ---- shared memory -----------------------------------------------------------------------------

    def _layout_of_helpers(self) -> SharedLayout:
        """What device functions name lies at the same place in every kernel of the unit."""
        layout = SharedLayout()
        for variable in self.shared.values():
            if not variable.unsized and any(mentions(f, variable.name) for f in self.helpers):
                layout.place(variable)
        return layout

    def _layout_of(self, kernel: Function) -> SharedLayout:
        common = self._common
        layout = SharedLayout(dict(common.offsets), list(common.variables), common.end)
        for variable in self.shared.values():
            placed = variable.name in layout.offsets
            if not placed and not variable.unsized and mentions(kernel, variable.name):
                layout.place(variable)
        return layout

    def symbol(self, name: str, function: Function) -> Symbol | None:
        """A variable of the module, as `function` sees it."""
        if name in self.shared:
            layout = self._layouts[function.name] if function.is_kernel else self._common
            if self.shared[name].unsized:
                return Symbol("shared", "(uint64_t)t->launch->dynamic_start")
            return Symbol("shared", f"(uint64_t){layout.offsets[name]}")
        index = self._variable_index.get(name)
        if index is None:
            return None
        return Symbol(self.variables[index].space, f"(uint64_t)variables[{index}]")

    # ---- keys --------------------------------------------------------------------------------------

    def new_key(self) -> int:
        self._keys += 1
        return mix(self._keys)

    def loop_key(self, function: Function, loop: int) -> int:
        """Odd, so that up to 2^64 iterations have different keys."""
        return mix((2 << 32) + (self._order[function.name] << 16) + loop) | 1

    # ---- output ------------------------------------------------------------------------------------

    def translate(self) -> str:
        helpers = [FunctionTranslator(self, f) for f in self.helpers]
        helper_bodies, broken = [], {}
        for f in helpers:
            try:
                helper_bodies.append(f.translate())
            except UnsupportedPTX as error:
                broken[f.function.name] = str(error)
        kernel_bodies, kernels = [], []
        for kernel in self.kernels:
            translator = FunctionTranslator(self, kernel)
            try:
                unusable = next((b for b in broken if self._calls(kernel, b)), None)
                if unusable:
                    raise UnsupportedPTX(f"device function {unusable}: {broken[unusable]}")
                kernel_bodies.append(translator.translate())
                kernels.append(translator)
            except UnsupportedPTX as error:
                self.errors[kernel.name] = str(error)
        usable = [f for f in helpers if f.function.name not in broken]
        grain = min([16, *(f.narrowest_access for f in usable)])
        stack = _BASE_STACK + sum(f.frame_bytes for f in usable)
        return "\n".join(
            [
                '#include "runtime.h"',
                *(['#include "../../faults/fault.h"'] if any("FAULT(" in b for b in helper_bodies + kernel_bodies) else []),
                f"static uint8_t* variables[{max(1, len(self.variables))}];",
                self.sites.definition(),
                *(f.signature + ";" for f in usable),
                *helper_bodies,
                *kernel_bodies,
                *(self._kernel_tables(k.function) for k in kernels),
                "static const Kernel kernels[] = {",
                *(self._kernel_row(k, min(grain, k.narrowest_access), stack) for k in kernels),
                "{nullptr}};",
                "EXPORT_UNIT(kernels, variables)",
                "",
            ]
        )

    def _calls(self, caller: Function, name: str) -> bool:
        """Directly or not"""
        seen, pending = set(), [caller]
        while pending:
            f = pending.pop()
            for helper in self.helpers:
                if helper.name not in seen and mentions(f, helper.name):
                    seen.add(helper.name)
                    pending.append(helper)
        return name in seen

    def _kernel_tables(self, kernel: Function) -> str:
        layout = self._layouts[kernel.name]
        pairs = ", ".join(f"{{{offset}, {size}}}" for offset, size in layout.variables) or "{0, 0}"
        return f"static const SharedVariable shared_{c_name(kernel.name)}[] = {{{pairs}}};"

    def _kernel_row(self, translator: FunctionTranslator, grain: int, stack: int) -> str:
        kernel = translator.function
        layout = self._layouts[kernel.name]
        name = c_name(kernel.name)
        fields = [
            json.dumps(kernel.name),
            f"kernel_{name}",
            f"shared_{name}",
            str(len(layout.variables)),
            str(layout.dynamic_start),
            str(min(grain, 8)),
            str(-(-(stack + translator.frame_bytes) // 4096) * 4096),
            "sites",
            str(len(self.sites.texts)),
        ]
        return f"{{{', '.join(fields)}}},"


def shared_variables(source: Source) -> dict[str, Variable]:
    shared: dict[str, Variable] = {}
    for v in source.variables:
        if v.space != "shared":
            continue
        other = shared.setdefault(v.name, v)
        if (other.size, other.alignment) != (v.size, v.alignment):
            raise UnsupportedPTX(f"two shared variables called {v.name}")
    return shared


def module_variables(source: Source) -> list[Variable]:
    return [v for v in source.variables if v.space in ("global", "const")]
