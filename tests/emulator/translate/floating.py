"""Single and double precision (PTX ISA 9.7.3). Approximate functions are computed nearly exactly."""

from __future__ import annotations

from ..errors import UnsupportedPTX
from ..parser import WIDTH
from .function import FunctionTranslator
from .instruction import Instruction

ROUNDING_MODE = {"rn": "TO_NEAREST", "rm": "DOWNWARD", "rp": "UPWARD", "rz": "TOWARD_ZERO"}
_SIGNS = {"add": "+", "sub": "-", "mul": "*"}


def finished(ins: Instruction, expression: str, type_: str) -> str:
    """The end of every f32 or f64 operation: NaNs of f32 are canonical, then .sat, then .ftz."""
    if type_ == "f32":
        expression = f"canonical({expression})"
    if ins.has("sat"):
        expression = f"saturate({expression})"
    if ins.has("ftz") and type_ == "f32":
        expression = f"flush({expression})"
    return expression


def basic(op: str, operands: list[str], rounding: str | None) -> str:
    """add sub mul fma, rounded as asked"""
    if rounding in (None, "rn"):
        if op == "fma":
            return f"fused({', '.join(operands)})"
        return f"({operands[0]} {_SIGNS[op]} {operands[1]})"
    third = operands[2] if op == "fma" else operands[0]
    return f"rounded_{op}<{ROUNDING_MODE[rounding]}>({operands[0]}, {operands[1]}, {third})"


def arithmetic(f: FunctionTranslator, ins: Instruction) -> None:
    """add sub mul fma mad on f32 and f64"""
    op = "fma" if ins.opcode == "mad" else ins.opcode
    if ins.has("lo", "hi", "wide", "cc", "relu") or (ins.type == "f64" and ins.has("ftz", "sat")):
        raise UnsupportedPTX("form of floating-point arithmetic")
    operands = [f.float_value(ins, o, ins.type) for o in ins.operands[1:]]
    f.write(ins.operands[0], ins.type, finished(ins, basic(op, operands, ins.rounding), ins.type))


def arithmetic_f32x2(f: FunctionTranslator, ins: Instruction) -> None:
    """Two f32 in a 64-bit register"""
    if ins.has("sat", "relu"):
        raise UnsupportedPTX("form of f32x2 arithmetic")
    packed = [f.bits(o, 8) for o in ins.operands[1:]]

    def half(shift: int) -> str:
        values = [f"as_f32((uint32_t)(({p}) >> {shift}))" for p in packed]
        if ins.has("ftz"):
            values = [f"flush({v})" for v in values]
        return finished(ins, basic(ins.opcode, values, ins.rounding), "f32")

    f.write(ins.operands[0], "b64", f"(uint64_t)to_bits({half(0)}) | ((uint64_t)to_bits({half(32)}) << 32)")


def divide(f: FunctionTranslator, ins: Instruction) -> None:
    x, y = (f.float_value(ins, o, ins.type) for o in ins.operands[1:])
    if ins.has("approx") and ins.type == "f32":
        e = f"approximate_divide({x}, {y})"
    elif ins.rounding in (None, "rn"):
        e = f"({x} / {y})"
    else:
        e = f"rounded_div<{ROUNDING_MODE[ins.rounding]}>({x}, {y}, {x})"
    f.write(ins.operands[0], ins.type, finished(ins, e, ins.type))


def minimum_maximum(f: FunctionTranslator, ins: Instruction) -> None:
    three = len(ins.operands) > 3
    wrong_f64 = ins.type == "f64" and ins.has("ftz", "NaN", "abs")
    if ins.has("relu") or ins.has("abs") != ins.has("xorsign") or wrong_f64 or (ins.has("abs") and three):
        raise UnsupportedPTX("form of min or max")
    name = f"float_{ins.opcode}{'_nan' if ins.has('NaN') else ''}"
    x, y, *rest = [f.float_value(ins, o, ins.type) for o in ins.operands[1:]]
    e = f"{name}({x}, {y})"
    if ins.has("abs"):
        e = f"exclusive_sign({name}(fabsf({x}), fabsf({y})), {x}, {y})"
    if rest:
        e = f"{name}({e}, {rest[0]})"
    f.write(ins.operands[0], ins.type, finished(ins, e, ins.type))


def sign(f: FunctionTranslator, ins: Instruction) -> None:
    """abs neg on f32 and f64: sign bits, so NaN payloads pass"""
    wide = ins.type == "f64"
    x = f"to_bits({f.float_value(ins, ins.operands[1], ins.type)})"
    if ins.opcode == "abs":
        e = f"{x} & {'0x7fffffffffffffffull' if wide else '0x7fffffffu'}"
    else:
        e = f"{x} ^ {'0x8000000000000000ull' if wide else '0x80000000u'}"
    f.write(ins.operands[0], f"b{WIDTH[ins.type] * 8}", e)


def function(f: FunctionTranslator, ins: Instruction) -> None:
    """rcp sqrt rsqrt ex2 lg2 sin cos tanh on f32 and f64"""
    op, type_ = ins.opcode, ins.type
    x = f.float_value(ins, ins.operands[1], type_)
    if ins.rounding in ("rz", "rm", "rp"):
        one = "1.f" if type_ == "f32" else "1.0"
        mode = ROUNDING_MODE[ins.rounding]
        e = f"rounded_div<{mode}>({one}, {x}, {x})" if op == "rcp" else f"rounded_sqrt<{mode}>({x}, {x}, {x})"
    elif type_ == "f32":
        through_double = {"ex2": "exp2", "lg2": "log2", "rsqrt": ""}.get(op, op)
        if op == "rcp":
            e = f"(1.f / {x})"
        elif op == "sqrt":
            e = f"sqrtf({x})"
        elif op == "rsqrt":
            e = f"(float)(1.0 / sqrt((double){x}))"
        else:
            e = f"(float){through_double}((double){x})"
    else:
        flushes = ins.has("approx") and ins.has("ftz")
        argument = f"flush({x})" if flushes else x
        forms = {
            "rcp": f"(1.0 / {argument})",
            "sqrt": f"sqrt({argument})",
            "rsqrt": f"(1.0 / sqrt({argument}))",
        }
        if op not in forms:
            raise UnsupportedPTX(f"{op} of f64")
        e = f"flush({forms[op]})" if flushes else forms[op]
        if ins.has("approx"):  # rcp.approx.ftz.f64 and rsqrt: the low word of the result is 0
            e = f"high_word({e})"
    f.write(ins.operands[0], type_, finished(ins, e, type_))


def copy_sign(f: FunctionTranslator, ins: Instruction) -> None:
    """copysign d, a, b: the sign of a, the magnitude of b"""
    a, b = (f.value(o, ins.type) for o in ins.operands[1:])
    f.write(ins.operands[0], ins.type, f"copysign{'f' if ins.type == 'f32' else ''}({b}, {a})")


def test_property(f: FunctionTranslator, ins: Instruction) -> None:
    x = f.value(ins.operands[1], ins.type)
    forms = {
        "finite": f"std::isfinite({x})",
        "infinite": f"std::isinf({x})",
        "number": f"!std::isnan({x})",
        "notanumber": f"std::isnan({x})",
        "normal": f"(std::isnormal({x}) || {x} == 0)",
        "subnormal": f"(std::isfinite({x}) && {x} != 0 && !std::isnormal({x}))",
    }
    f.write(ins.operands[0], "pred", forms[ins.modifiers[0]])
