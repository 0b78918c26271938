"""Opcodes that stand for several kinds of operand: the type decides which family translates them."""

from __future__ import annotations

from ..errors import UnsupportedPTX
from ..parser import WIDTH
from . import floating, half, integer
from .function import UNSIGNED, FunctionTranslator
from .instruction import Instruction, translates

_ROUND = "rn rz rm rp ftz sat"
_SINGLE_OR_DOUBLE = ("f32", "f64")


@translates("add sub", f"cc {_ROUND}")
@translates("mul", f"lo hi wide {_ROUND}")
@translates("mad", f"lo hi wide cc {_ROUND}")
@translates("fma", f"relu {_ROUND}")
@translates("min max", "ftz NaN xorsign abs relu")
@translates("div", "approx full rn rz rm rp ftz")
@translates("rem")
@translates("sad")
@translates("mul24 mad24", "lo hi")
def arithmetic(f: FunctionTranslator, ins: Instruction) -> None:
    type_ = ins.type
    if type_ in half.TYPES:
        half.arithmetic(f, ins)
    elif type_ == "f32x2":
        floating.arithmetic_f32x2(f, ins)
    elif type_ not in _SINGLE_OR_DOUBLE:
        (integer.extended if ins.has("cc") else integer.arithmetic)(f, ins)
    elif ins.opcode == "div":
        floating.divide(f, ins)
    elif ins.opcode in ("min", "max"):
        floating.minimum_maximum(f, ins)
    else:
        floating.arithmetic(f, ins)


@translates("addc subc", "cc")
@translates("madc", "lo hi cc")
def extended(f: FunctionTranslator, ins: Instruction) -> None:
    integer.extended(f, ins)


@translates("abs neg", "ftz")
def sign(f: FunctionTranslator, ins: Instruction) -> None:
    type_ = ins.type
    if type_ in _SINGLE_OR_DOUBLE:
        floating.sign(f, ins)
    elif type_ in half.TYPES:
        half.sign(f, ins)
    else:
        x, unsigned = f.value(ins.operands[1], type_), UNSIGNED[WIDTH[type_]]
        negated = f"({unsigned})0 - ({unsigned})({x})"
        f.write(
            ins.operands[0],
            type_,
            negated if ins.opcode == "neg" else f"({x}) < 0 ? {negated} : ({unsigned})({x})",
        )


@translates("rcp sqrt", "approx rn rz rm rp ftz")
@translates("rsqrt ex2 lg2 sin cos", "approx ftz")
@translates("tanh", "approx")
def function(f: FunctionTranslator, ins: Instruction) -> None:
    if ins.type in _SINGLE_OR_DOUBLE:
        floating.function(f, ins)
    elif ins.type in half.TYPES:
        half.function(f, ins)
    else:
        raise UnsupportedPTX(f"{ins.opcode} of {ins.type}")


translates("copysign")(floating.copy_sign)
translates("testp", "finite infinite number notanumber normal subnormal")(floating.test_property)
translates("and or xor not cnot")(integer.logic)
translates("shl shr")(integer.shift)
translates("shf", "l r wrap clamp")(integer.funnel_shift)
translates("prmt", "f4e b4e rc8 ecl ecr rc16")(integer.permute)
translates("lop3", "and or")(integer.lookup_3)
translates("bfe bfi fns brev popc clz")(integer.bit_field)
translates("bfind", "shiftamt")(integer.bit_field)
translates("bmsk szext", "clamp wrap")(integer.bit_field)
translates("dp4a")(integer.dot_product)
translates("dp2a", "lo hi")(integer.dot_product)
