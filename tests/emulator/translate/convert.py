"""cvt (PTX ISA 9.7.9.21): between all integer and floating-point types."""

from __future__ import annotations

from ..errors import UnsupportedPTX
from ..parser import WIDTH
from .floating import ROUNDING_MODE
from .function import FunctionTranslator
from .half import conversions
from .instruction import Instruction, translates
from .integer import c_type

_FLOATS = ("f16", "bf16", "f32", "f64")
_TO_INTEGRAL = {"rni": "nearbyint", "rzi": "trunc", "rmi": "floor", "rpi": "ceil"}


def _narrowing(ins: Instruction, type_: str) -> str:
    """f32 -> f16 or bf16 in the asked rounding"""
    suffix = f"_{ins.rounding}" if ins.rounding in ("rz", "rm", "rp") else ""
    return conversions(type_)[0] + suffix


@translates("cvt", "rn rz rm rp rna rni rzi rmi rpi ftz sat relu")
def convert(f: FunctionTranslator, ins: Instruction) -> None:
    types = [m for m in ins.modifiers if m in WIDTH]
    if len(types) != 2:
        raise UnsupportedPTX("form of cvt")
    to, from_ = types
    integral = ins.one_of(*_TO_INTEGRAL)
    if to in ("f16x2", "bf16x2") and from_ == "f32":
        _two_singles_to_pair(f, ins, to)
        return
    if ins.modifiers == ["rna", "tf32", "f32"]:
        f.write(ins.operands[0], "b32", f"f32_to_tf32({f.value(ins.operands[1], 'f32')})")
        return
    if ins.has("rna") or len(ins.operands) != 2:
        raise UnsupportedPTX("form of cvt")
    if to.endswith("x2") or from_.endswith("x2") or "tf32" in types:
        raise UnsupportedPTX("types of cvt")
    if from_ in _FLOATS and to in _FLOATS:
        _float_to_float(f, ins, to, from_, integral)
        return
    if ins.has("relu"):
        raise UnsupportedPTX("form of cvt")
    if from_ in _FLOATS:
        _float_to_integer(f, ins, to, from_, integral or "rzi")
    elif to in _FLOATS:
        _integer_to_float(f, ins, to, from_)
    else:
        _integer_to_integer(f, ins, to, from_)


def _two_singles_to_pair(f: FunctionTranslator, ins: Instruction, to: str) -> None:
    """cvt.f16x2.f32 d, a, b: a into the high half, b into the low one"""
    if ins.has("sat", "ftz", *_TO_INTEGRAL) or len(ins.operands) != 3:
        raise UnsupportedPTX("form of cvt")
    narrow = _narrowing(ins, to[:-2])
    high, low = (f"{narrow}({f.value(o, 'f32')})" for o in ins.operands[1:])
    if ins.has("relu"):
        high, low = f"relu_half({high})", f"relu_half({low})"
    f.write(ins.operands[0], "b32", f"((uint32_t)({high}) << 16) | (uint32_t)({low})")


def _widened(f: FunctionTranslator, ins: Instruction, from_: str) -> tuple[str, str]:
    """The source as a float or a double, and the suffix of C functions for it"""
    x = f.value(ins.operands[1], from_)
    if from_ in ("f16", "bf16"):
        return f"{conversions(from_)[1]}({x})", "f"
    if from_ == "f32":
        return (f"flush({x})" if ins.has("ftz") else x), "f"
    return x, ""


def _float_to_float(f: FunctionTranslator, ins: Instruction, to: str, from_: str, integral: str | None) -> None:
    x, suffix = _widened(f, ins, from_)
    if integral:
        x = f"{_TO_INTEGRAL[integral]}{suffix}({x})"
    if to in ("f16", "bf16"):
        if not suffix:
            x = f"f64_to_f32_odd({x})"  # rounding to odd first makes the second rounding exact
        if ins.has("sat"):
            x = f"saturate({x})"
        e = f"{_narrowing(ins, to)}({x})"
        f.write(ins.operands[0], "b16", f"relu_half({e})" if ins.has("relu") else e)
        return
    if ins.has("relu"):
        raise UnsupportedPTX("form of cvt")
    if to == "f64":
        e = f"(double)({x})"
    elif suffix:
        e = f"canonical({x})" if from_ == "f16" or integral else x
    elif ins.rounding in (None, "rn"):
        e = f"(float)({x})"
    else:
        e = f"rounded_f64_to_f32<{ROUNDING_MODE[ins.rounding]}>({x})"
    if to == "f32" and ins.has("ftz"):
        e = f"flush({e})"
    f.write(ins.operands[0], to, f"saturate({e})" if ins.has("sat") else e)


def _float_to_integer(f: FunctionTranslator, ins: Instruction, to: str, from_: str, integral: str) -> None:
    """Values out of range are clamped. NaN gives 0, or the lowest value from f64 and for 64-bit results."""
    x, suffix = _widened(f, ins, from_)
    nan = 1 << (WIDTH[to] * 8 - 1) if from_ == "f64" or WIDTH[to] == 8 else 0
    type_ = c_type(to)
    whole = f"{_TO_INTEGRAL[integral]}{suffix}({x})"
    f.write(
        ins.operands[0],
        to,
        f"to_integer<{type_}, {'float' if suffix else 'double'}>({whole}, ({type_})0x{nan:x}ull)",
    )


def _integer_to_float(f: FunctionTranslator, ins: Instruction, to: str, from_: str) -> None:
    x = f.value(ins.operands[1], from_)
    if to in ("f16", "bf16"):
        f.write(ins.operands[0], "b16", f"{_narrowing(ins, to)}(f64_to_f32_odd(integer_to_f64_odd({x})))")
        return
    type_ = "float" if to == "f32" else "double"
    if ins.rounding in (None, "rn"):
        f.write(ins.operands[0], to, f"({type_})({x})")
    else:
        mode = ROUNDING_MODE[ins.rounding]
        f.write(ins.operands[0], to, f"rounded_integer_to_float<{mode}, {type_}, {c_type(from_)}>({x})")


def _integer_to_integer(f: FunctionTranslator, ins: Instruction, to: str, from_: str) -> None:
    x = f.value(ins.operands[1], from_)
    if ins.has("sat"):
        width = WIDTH[to] * 8
        low, high = (-(1 << (width - 1)), (1 << (width - 1)) - 1) if to[0] == "s" else (0, (1 << width) - 1)
        low_text = f"(s128)(int64_t)0x{low & (1 << 64) - 1:x}ull"
        x = f"std::min(std::max((s128)({x}), {low_text}), (s128)0x{high:x}ull)"
    f.write(ins.operands[0], to, x)
