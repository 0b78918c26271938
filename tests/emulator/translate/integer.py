"""Integer and bit instructions (PTX ISA 9.7.1, 9.7.2, 9.7.8)."""

from __future__ import annotations

from ..errors import UnsupportedPTX
from ..parser import WIDTH
from .function import SIGNED, UNSIGNED, FunctionTranslator
from .instruction import Instruction

_WIDE_UNSIGNED = {2: "uint32_t", 4: "uint64_t", 8: "u128"}
_WIDE_SIGNED = {2: "int32_t", 4: "int64_t", 8: "s128"}
_FLOAT_MODIFIERS = ("rn", "rz", "rm", "rp", "ftz", "NaN", "xorsign", "abs", "approx", "full")


def as_integer(type_: str) -> str:
    """Untyped bits count as unsigned."""
    return type_ if type_[0] != "b" else "u" + type_[1:]


def c_type(type_: str) -> str:
    return SIGNED[WIDTH[type_]] if type_[0] == "s" else UNSIGNED[WIDTH[type_]]


def arithmetic(f: FunctionTranslator, ins: Instruction) -> None:
    """add sub mul mad mul24 mad24 min max div rem sad on integers"""
    type_ = as_integer(ins.type)
    if type_ in ("u16x2", "s16x2"):
        _packed(f, ins, type_)
        return
    if ins.has(*_FLOAT_MODIFIERS) or (ins.has("sat", "relu") and type_ != "s32"):
        raise UnsupportedPTX("form of integer arithmetic")
    target, *operands = ins.operands
    x, y = (f.value(o, type_) for o in operands[:2])
    size = WIDTH[type_]
    unsigned = UNSIGNED[size]
    op = ins.opcode
    if op in ("min", "max"):
        e = f"std::{op}({x}, {y})"
        f.write(target, type_, f"std::max({e}, ({SIGNED[size]})0)" if ins.has("relu") else e)
    elif op in ("div", "rem"):
        f.write(target, type_, f"integer_{op}<{c_type(type_)}>(t, {f.site()}, {x}, {y})")
    elif op == "sad":
        difference = f"({x} < {y} ? ({unsigned})({y}) - ({unsigned})({x}) : ({unsigned})({x}) - ({unsigned})({y}))"
        f.write(target, type_, f"({unsigned})({f.value(operands[2], type_)}) + ({unsigned}){difference}")
    elif op in ("add", "sub"):
        sign = "+" if op == "add" else "-"
        if ins.has("sat"):
            f.write(target, type_, f"to_integer<int32_t>((double){x} {sign} (double){y})")
        else:
            f.write(target, type_, f"({unsigned})(({unsigned})({x}) {sign} ({unsigned})({y}))")
    elif op in ("mul24", "mad24"):
        _multiply_24(f, ins, type_, x, y)
    else:
        _multiply(f, ins, type_, x, y)


def _multiply_24(f: FunctionTranslator, ins: Instruction, type_: str, x: str, y: str) -> None:
    def low_24(v: str) -> str:
        if type_[0] == "s":
            return f"((int64_t)(int32_t)((uint32_t)({v}) << 8) >> 8)"
        return f"(int64_t)(({v}) & 0xffffffu)"

    e = f"(uint32_t)(({low_24(x)} * {low_24(y)}) >> {16 if ins.has('hi') else 0})"
    if ins.opcode == "mad24":
        e += f" + (uint32_t)({f.value(ins.operands[3], type_)})"
    f.write(ins.operands[0], type_, e)


def _multiply(f: FunctionTranslator, ins: Instruction, type_: str, x: str, y: str) -> None:
    size = WIDTH[type_]
    wide = (_WIDE_SIGNED if type_[0] == "s" else _WIDE_UNSIGNED)[size]
    product = f"(({_WIDE_UNSIGNED[size]})(({wide})({x}) * ({wide})({y})))"
    if ins.has("wide"):
        wide_type = f"{type_[0]}{size * 16}"
        e = product
        if ins.opcode == "mad":
            double = UNSIGNED[2 * size]
            e = f"({double})({product}) + ({double})({f.value(ins.operands[3], wide_type)})"
        f.write(ins.operands[0], wide_type, e)
        return
    unsigned = UNSIGNED[size]
    e = f"({unsigned})({product} >> {size * 8})" if ins.has("hi") else f"({unsigned})({product})"
    if ins.opcode == "mad":
        addend = f.value(ins.operands[3], type_)
        if ins.has("sat"):
            if not ins.has("hi"):
                raise UnsupportedPTX("mad.sat without .hi")
            e = f"to_integer<int32_t>((double)(int32_t)({e}) + (double){addend})"
        else:
            e = f"({unsigned})({e} + ({unsigned})({addend}))"
    f.write(ins.operands[0], type_, e)


def _packed(f: FunctionTranslator, ins: Instruction, type_: str) -> None:
    if ins.opcode not in ("add", "min", "max") or ins.has("sat"):
        raise UnsupportedPTX("form of packed integer arithmetic")
    half_type = "int16_t" if type_[0] == "s" else "uint16_t"
    x, y = (f.bits(o, 4) for o in ins.operands[1:3])

    def half(shift: int) -> str:
        a, b = (f"({half_type})(({v}) >> {shift})" for v in (x, y))
        e = f"({a} + {b})" if ins.opcode == "add" else f"std::{ins.opcode}({a}, {b})"
        return f"std::max((int)({e}), 0)" if ins.has("relu") else e

    f.write(ins.operands[0], "b32", f"((uint32_t)({half(0)}) & 0xffffu) | ((uint32_t)({half(16)}) << 16)")


def extended(f: FunctionTranslator, ins: Instruction) -> None:
    """Extended precision (PTX ISA 9.7.2): .cc writes the carry, addc, subc and madc read it."""
    size = WIDTH[ins.type]
    unsigned, wide, width = UNSIGNED[size], _WIDE_UNSIGNED[size], size * 8
    carry_in = "t->carry" if ins.opcode.endswith("c") else "0"
    x, y = f.bits(ins.operands[1], size), f.bits(ins.operands[2], size)
    subtracts = ins.opcode in ("sub", "subc")
    if ins.opcode in ("mad", "madc"):
        if ins.type[0] == "s":
            signed = SIGNED[size]
            product = f"({wide})(({_WIDE_SIGNED[size]})({signed})({x}) * ({signed})({y}))"
        else:
            product = f"({wide})({x}) * ({y})"
        x = f"({unsigned})(({product}) >> {width})" if ins.has("hi") else f"({unsigned})({product})"
        y = f.bits(ins.operands[3], size)
    sign = "-" if subtracts else "+"
    f.emit(f"{{ const {wide} sum = ({wide})({x}) {sign} ({y}) {sign} {carry_in};")
    f.write(ins.operands[0], f"b{width}", "sum")
    if ins.has("cc"):
        f.emit(f"t->carry = (int)((sum >> {width}) & 1);")
    f.emit("}")


def logic(f: FunctionTranslator, ins: Instruction) -> None:
    """and or xor not cnot"""
    sign = {"and": "&", "or": "|", "xor": "^"}.get(ins.opcode)
    if ins.type == "pred":
        x = f.predicate(ins.operands[1])
        f.write(ins.operands[0], "pred", f"{x} {sign} {f.predicate(ins.operands[2])}" if sign else f"!{x}")
        return
    size = WIDTH[ins.type]
    x = f.bits(ins.operands[1], size)
    e = f"{x} {sign} {f.bits(ins.operands[2], size)}" if sign else f"~{x}" if ins.opcode == "not" else f"({x} == 0)"
    f.write(ins.operands[0], ins.type, e)


def shift(f: FunctionTranslator, ins: Instruction) -> None:
    """shl shr: amounts above the width are clamped to it."""
    type_ = as_integer(ins.type)
    name = "shift_left" if ins.opcode == "shl" else "shift_right"
    x, amount = f.value(ins.operands[1], type_), f.value(ins.operands[2], "u32")
    f.write(ins.operands[0], type_, f"{name}<{c_type(type_)}>({x}, {amount})")


def funnel_shift(f: FunctionTranslator, ins: Instruction) -> None:
    a, b, amount = (f.value(o, "u32") for o in ins.operands[1:4])
    amount = f"std::min({amount}, 32u)" if ins.has("clamp") else f"({amount} & 31)"
    side = "left" if ins.modifiers[0] == "l" else "right"
    f.write(ins.operands[0], "b32", f"funnel_shift_{side}({a}, {b}, {amount})")


_PERMUTE_MODES = ("f4e", "b4e", "rc8", "ecl", "ecr", "rc16")


def permute(f: FunctionTranslator, ins: Instruction) -> None:
    a, b, selector = (f.value(o, "u32") for o in ins.operands[1:4])
    mode = ins.one_of(*_PERMUTE_MODES)
    if mode:
        selector = f"permute_selector<PERMUTE_{mode.upper()}>({selector})"
    f.write(ins.operands[0], "b32", f"permute({a}, {b}, {selector})")


def lookup_3(f: FunctionTranslator, ins: Instruction) -> None:
    """lop3, also with a predicate: d|p = (result != 0) BoolOp q"""
    a, b, c = (f.value(o, "u32") for o in ins.operands[1:4])
    e = f"lookup_3({a}, {b}, {c}, {ins.operands[4]})"
    if not ins.has("or", "and"):
        f.write(ins.operands[0], "b32", e)
        return
    target, predicate = ins.operands[0].split("|")
    sign = "|" if ins.has("or") else "&"
    f.emit(f"{{ const uint32_t looked_up = {e}; const bool other = {f.predicate(ins.operands[5])};")
    f.write(target, "b32", "looked_up")
    f.write(predicate, "pred", f"(looked_up != 0) {sign} other")
    f.emit("}")


def bit_field(f: FunctionTranslator, ins: Instruction) -> None:
    """bfe bfi bfind bmsk szext fns brev popc clz"""
    target, *operands = ins.operands
    type_, op = ins.type, ins.opcode
    clamp = "true" if ins.has("clamp") else "false"
    first = f.value(operands[0], type_)

    def u32(index: int) -> str:
        return f.value(operands[index], "u32")

    if op == "bfe":
        unsigned = UNSIGNED[WIDTH[type_]]
        f.write(target, type_, f"extract_bits<{unsigned}, {c_type(type_)}>({first}, {u32(1)}, {u32(2)})")
    elif op == "bfi":
        second = f.value(operands[1], type_)
        f.write(target, type_, f"insert_bits<{c_type(type_)}>({first}, {second}, {u32(2)}, {u32(3)})")
    elif op == "bfind":
        f.write(
            target,
            "u32",
            f"find_top_bit<{c_type(type_)}>({first}, {'true' if ins.has('shiftamt') else 'false'})",
        )
    elif op == "bmsk":
        f.write(target, "b32", f"bit_mask({u32(0)}, {u32(1)}, {clamp})")
    elif op == "szext":
        signed = "true" if type_[0] == "s" else "false"
        f.write(target, "b32", f"extend({u32(0)}, {u32(1)}, {clamp}, {signed})")
    elif op == "fns":
        base, offset = f.value(operands[1], "s32"), f.value(operands[2], "s32")
        f.write(target, "b32", f"find_nth_set({u32(0)}, {base}, {offset})")
    elif op == "brev":
        f.write(target, type_, f"reverse_bits<{UNSIGNED[WIDTH[type_]]}>({first})")
    elif op == "popc":
        f.write(target, "u32", f"__builtin_popcountll((uint64_t){first})")
    else:
        f.write(target, "u32", f"leading_zeros({first})")


def dot_product(f: FunctionTranslator, ins: Instruction) -> None:
    """dp4a: four products of bytes; dp2a: two of a 16-bit value and a byte (of the .lo or .hi pair)"""
    x, y, addend = (f.value(o, "u32") for o in ins.operands[1:4])
    signs = [t[0] == "s" for t in ins.modifiers[-2:]]
    four = ins.opcode == "dp4a"
    first = {True: "int8_t", False: "uint8_t"} if four else {True: "int16_t", False: "uint16_t"}
    second = {True: "int8_t", False: "uint8_t"}
    step, start = (8, 0) if four else (16, 16 if ins.has("hi") else 0)
    products = [
        f"(uint32_t)((int32_t)({first[signs[0]]})({x} >> {step * i}) * (int32_t)({second[signs[1]]})({y} >> {8 * i + start}))"
        for i in range(4 if four else 2)
    ]
    f.write(ins.operands[0], "b32", f"(uint32_t)({addend}) + {' + '.join(products)}")
