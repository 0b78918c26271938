"""Branches, calls, exits, and instructions that order or hint but compute nothing."""

from __future__ import annotations

import re

from ..errors import UnsupportedPTX
from ..parser import split_operands
from .function import FunctionTranslator
from .instruction import Instruction, translates
from .scope import c_name


@translates("bra", "uni")
def branch(f: FunctionTranslator, ins: Instruction) -> None:
    f.emit(f.jump(ins.operands[0]))


@translates("brx", "idx uni")
def branch_indexed(f: FunctionTranslator, ins: Instruction) -> None:
    targets = ins.scope.table(ins.operands[1])
    cases = " ".join(f"case {i}: {f.jump(label)}" for i, label in enumerate(targets))
    f.emit(f"switch ({f.value(ins.operands[0], 'u32')}) {{ {cases} }}")
    f.emit(f'fail(t, {f.site()}, "brx.idx index out of range");')


@translates("ret", "uni")
def return_(f: FunctionTranslator, ins: Instruction) -> None:
    f.emit("return;")


@translates("exit")
def exit_(f: FunctionTranslator, ins: Instruction) -> None:
    if not f.function.is_kernel:
        raise UnsupportedPTX("exit inside a device function")
    f.emit("return;")


@translates("trap")
def trap(f: FunctionTranslator, ins: Instruction) -> None:
    f.emit(f'fail(t, {f.site()}, "trap");')


# Memory is sequentially consistent here, so fences order nothing more; the rest are hints.
_FENCES = "gl cta sys level cluster gpu sc acq_rel acquire release proxy alias async global shared::cta"
_HINTS = "global local L1 L2 L2::128B L2::evict_last L2::evict_normal L2::cache_hint L2::evict_unchanged"


@translates("membar fence", _FENCES)
def fence(f: FunctionTranslator, ins: Instruction) -> None:
    return


@translates("prefetch prefetchu discard applypriority pmevent brkpt nop", _HINTS)
def hint(f: FunctionTranslator, ins: Instruction) -> None:
    return


@translates("griddepcontrol", "launch_dependents wait")
@translates("setmaxnreg", "inc dec sync aligned")
def scheduling_hint(f: FunctionTranslator, ins: Instruction) -> None:
    return


@translates("createpolicy", "fractional range " + _HINTS)
def cache_policy(f: FunctionTranslator, ins: Instruction) -> None:
    f.write(ins.operands[0], "b64", "0ull")


@translates("nanosleep")
def nanosleep(f: FunctionTranslator, ins: Instruction) -> None:
    f.emit("spin(t);")


_CALL = re.compile(r"^(?:\(([^)]*)\)\s*,)?\s*([\w$%]+)\s*(?:,\s*\(([^)]*)\))?\s*(?:,\s*[\w$]+)?$")


@translates("call", "uni")
def call(f: FunctionTranslator, ins: Instruction) -> None:
    m = _CALL.match(ins.operand_text)
    if not m:
        raise UnsupportedPTX("form of call")
    returns, name, arguments = split_operands(m[1] or ""), m[2], split_operands(m[3] or "")
    symbols = [f.symbol(x) for x in returns + arguments]
    if any(s is None for s in symbols):
        raise UnsupportedPTX("call with an argument that is not a .param variable")
    pointers = [f"(uint8_t*)({s.address})" for s in symbols if s]
    if name == "vprintf":
        text, values = (f"load<uint64_t>({p})" for p in pointers[-2:])
        printed = f"device_printf((const char*){text}, (const uint8_t*){values})"
        f.emit(f"store<uint32_t>({pointers[0]}, (uint32_t){printed});" if returns else f"{printed};")
    elif name == "__assertfail":
        f.emit(f'fail(t, {f.site()}, "device assertion `%s`", (const char*)load<uint64_t>({pointers[0]}));')
    elif name not in f.unit.device_functions:
        raise UnsupportedPTX(f"call of a function without a body: {name}")
    else:
        key = f.unit.new_key()
        f.emit("{ const uint64_t outer = t->call_context;")
        f.emit(f"t->call_context = call_key(context + 0x{key:x}ull);")
        f.emit(f"function_{c_name(name)}({', '.join(['t', *pointers])});")
        f.emit("t->call_context = outer; }")
