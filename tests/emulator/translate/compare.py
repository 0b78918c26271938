"""Comparison and selection (PTX ISA 9.7.5, 9.7.6): setp set selp slct"""

from __future__ import annotations

from ..errors import UnsupportedPTX
from ..parser import WIDTH
from .function import FunctionTranslator
from .half import conversions
from .instruction import Instruction, translates

_COMPARISONS = "eq ne lt le gt ge lo ls hi hs equ neu ltu leu gtu geu num nan and or xor ftz"
_ORDERED = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_UNSIGNED = {"lo": "<", "ls": "<=", "hi": ">", "hs": ">="}
_UNORDERED = {f"{name}u": sign for name, sign in _ORDERED.items()}
_COMBINE = {"and": "&", "or": "|", "xor": "^"}


def _comparison(name: str, x: str, y: str, floating: bool) -> str:
    if name == "num":
        return f"({x} == {x} && {y} == {y})"
    if name == "nan":
        return f"({x} != {x} || {y} != {y})"
    if floating and name == "ne":  # ordered: false where either is NaN
        return f"({x} < {y} || {x} > {y})"
    sign = _ORDERED.get(name) or _UNSIGNED.get(name)
    if sign:
        return f"({x} {sign} {y})"
    return f"(!({x} == {x} && {y} == {y}) || {x} {_UNORDERED[name]} {y})"


def _half_comparison(f: FunctionTranslator, ins: Instruction, name: str, shift: int) -> str:
    widen = conversions(ins.type)[1]
    flush = "flush_half" if ins.has("ftz") else ""
    x, y = (f"{widen}({flush}((uint16_t)(({f.value(o, ins.type)}) >> {shift})))" for o in ins.operands[1:3])
    return _comparison(name, x, y, floating=True)


def _comparisons(f: FunctionTranslator, ins: Instruction) -> list[str]:
    """One comparison, or two for a pair of halves"""
    name, type_ = ins.modifiers[0], ins.type
    if type_ in ("f16", "bf16"):
        return [_half_comparison(f, ins, name, 0)]
    if type_ in ("f16x2", "bf16x2"):
        return [_half_comparison(f, ins, name, shift) for shift in (0, 16)]
    x, y = (f.float_value(ins, o, type_) for o in ins.operands[1:3])
    return [_comparison(name, x, y, floating=type_[0] == "f")]


def _combined(f: FunctionTranslator, ins: Instruction, comparison: str) -> str:
    operation = next((m for m in ins.modifiers[1:] if m in _COMBINE), None)
    return f"({comparison}) {_COMBINE[operation]} {f.predicate(ins.operands[3])}" if operation else comparison


@translates("setp", _COMPARISONS)
def set_predicate(f: FunctionTranslator, ins: Instruction) -> None:
    """setp p|q: q is the comparison's negation; for a pair of halves p and q are its two results"""
    targets = ins.operands[0].split("|")
    first, *second = _comparisons(f, ins)
    f.emit(f"{{ const bool compared = {first};")
    f.emit(f"const bool other = {second[0] if second else '!compared'}; (void)other;")
    # Both are worked out before either is written: a destination may be the operand c.
    f.emit(f"const bool p = {_combined(f, ins, 'compared')}, q = {_combined(f, ins, 'other')}; (void)q;")
    f.write(targets[0], "pred", "p")
    if len(targets) > 1:
        f.write(targets[1], "pred", "q")
    f.emit("}")


@translates("set", _COMPARISONS)
def set_value(f: FunctionTranslator, ins: Instruction) -> None:
    target, result, type_ = ins.operands[0], ins.modifiers[-2], ins.type
    conditions = [_combined(f, ins, c) for c in _comparisons(f, ins)]
    if len(conditions) == 2:
        if result not in (type_, "u32", "s32"):
            raise UnsupportedPTX("types of set")
        one = "0xffffu" if result != type_ else "0x3c00u" if type_ == "f16x2" else "0x3f80u"
        f.write(target, "b32", f"(({conditions[0]}) ? {one} : 0) | (({conditions[1]}) ? {one} << 16 : 0)")
    elif result == "f32":
        f.write(target, "f32", f"({conditions[0]}) ? 1.f : 0.f")
    elif result in ("f16", "bf16"):
        f.write(target, "b16", f"({conditions[0]}) ? {'0x3c00' if result == 'f16' else '0x3f80'} : 0")
    elif WIDTH[result] in (2, 4):
        f.write(target, "b32", f"({conditions[0]}) ? 0xffffffffu : 0u")
    else:
        raise UnsupportedPTX("types of set")


@translates("selp")
def select(f: FunctionTranslator, ins: Instruction) -> None:
    size = WIDTH[ins.type]
    a, b = (f.bits(o, size, ins.type) for o in ins.operands[1:3])
    f.write(ins.operands[0], f"b{size * 8}", f"{f.predicate(ins.operands[3])} ? {a} : {b}")


@translates("slct", "ftz")
def select_by_sign(f: FunctionTranslator, ins: Instruction) -> None:
    type_ = ins.modifiers[-2]
    size = WIDTH[type_]
    a, b = (f.bits(o, size, type_) for o in ins.operands[1:3])
    condition = f"{f.float_value(ins, ins.operands[3], ins.type)} >= 0"
    f.write(ins.operands[0], f"b{size * 8}", f"({condition}) ? {a} : {b}")
