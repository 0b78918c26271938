"""Half precision and bfloat16, alone and in pairs (PTX ISA 9.7.4). Computed in f32 or wider, rounded once."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import UnsupportedPTX
from .floating import _SIGNS
from .function import FunctionTranslator
from .instruction import Instruction

TYPES = ("f16", "bf16", "f16x2", "bf16x2")


def conversions(type_: str) -> tuple[str, str]:
    """(narrowing, widening) functions of f16 or bf16, or of a pair of them"""
    return ("f32_to_half", "half_to_f32") if type_[0] == "f" else ("f32_to_bfloat", "bfloat_to_f32")


def write_each(f: FunctionTranslator, ins: Instruction, operands: list[str], scalar: Callable[[list[str]], str]) -> None:
    """destination = scalar(operands), once, or for the low and the high half of a pair"""
    values = [f.value(o, ins.type) for o in operands]
    if not ins.type.endswith("x2"):
        f.write(ins.operands[0], "b16", scalar(values))
        return
    low = scalar([f"((uint16_t)({v}))" for v in values])
    high = scalar([f"((uint16_t)(({v}) >> 16))" for v in values])
    f.write(ins.operands[0], "b32", f"(uint32_t)({low}) | ((uint32_t)({high}) << 16)")


def arithmetic(f: FunctionTranslator, ins: Instruction) -> None:
    """add sub mul fma min max"""
    op, flushes, is_half = ins.opcode, ins.has("ftz"), ins.type[0] == "f"
    narrow, widen = conversions(ins.type)
    if (
        ins.rounding not in (None, "rn")
        or (flushes and not is_half)
        or ins.has("lo", "hi", "wide", "cc", "approx")
        or op in ("mad", "div", "rem")
        or (ins.has("relu") and op != "fma")
        or (op in ("min", "max") and len(ins.operands) > 3)
    ):
        raise UnsupportedPTX("form of half-precision arithmetic")

    def scalar(x: list[str]) -> str:
        if flushes:
            x = [f"flush_half({v})" for v in x]
        if op in _SIGNS:
            e = f"{narrow}({widen}({x[0]}) {_SIGNS[op]} {widen}({x[1]}))"
        elif op == "fma":
            e = f"{'half' if is_half else 'bfloat'}_fma({x[0]}, {x[1]}, {x[2]})"
        else:
            name = f"float_{op}{'_nan' if ins.has('NaN') else ''}"
            u, v = f"{widen}({x[0]})", f"{widen}({x[1]})"
            if ins.has("xorsign"):
                e = f"{narrow}(exclusive_sign({name}(fabsf({u}), fabsf({v})), {u}, {v}))"
            else:
                e = f"{narrow}({name}({u}, {v}))"
        if ins.has("relu"):
            e = f"relu_half({e})"
        if ins.has("sat"):
            e = f"saturate_half({e}, {'0x3c00' if is_half else '0x3f80'})"
        return f"flush_half({e})" if flushes else e

    write_each(f, ins, ins.operands[1:], scalar)


def sign(f: FunctionTranslator, ins: Instruction) -> None:
    change = "& 0x7fff" if ins.opcode == "abs" else "^ 0x8000"

    def scalar(x: list[str]) -> str:
        return f"({f'flush_half({x[0]})' if ins.has('ftz') else x[0]} {change})"

    write_each(f, ins, ins.operands[1:], scalar)


def function(f: FunctionTranslator, ins: Instruction) -> None:
    """ex2 tanh lg2"""
    names = {"ex2": "exp2f", "tanh": "tanhf", "lg2": "log2f"}
    if ins.opcode not in names:
        raise UnsupportedPTX(f"{ins.opcode} of {ins.type}")
    narrow, widen = conversions(ins.type)
    flush = ("flush_half" if ins.type[0] == "f" else "flush_bfloat") if ins.has("ftz") else ""
    write_each(
        f,
        ins,
        ins.operands[1:],
        lambda x: f"{flush}({narrow}({names[ins.opcode]}({widen}({flush}({x[0]})))))",
    )
