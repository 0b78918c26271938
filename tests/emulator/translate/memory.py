"""Loads, stores, atomics, asynchronous copies, and conversions of addresses."""

from __future__ import annotations

import re

from ..errors import UnsupportedPTX
from ..parser import WIDTH, split_operands
from .function import SIGNED, UNSIGNED, FunctionTranslator
from .instruction import Instruction, translates
from .scope import Register

_SPACES = "global shared shared::cta local const param param::entry param::func"
_ORDERS = "relaxed acquire release acq_rel weak volatile cta cluster gpu sys"


def address(f: FunctionTranslator, operand: str) -> tuple[str | None, str]:
    """`[register + offset]` or `[symbol + offset]` -> (the symbol's space, uint64_t expression)"""
    m = re.fullmatch(r"\[\s*([\w$%.]+)\s*(?:\+\s*(-?\w+))?\s*\]", operand.strip())
    if not m:
        raise UnsupportedPTX(f"address {operand}")
    base, offset = m[1], int(m[2], 0) if m[2] else 0
    found = f.instruction.scope.find(base)
    if isinstance(found, Register):
        if found.size == 8:
            return None, f"((uint64_t){found.name} + {offset}ll)"
        return None, f"(uint64_t)(uint32_t)({found.name} + {offset})"
    symbol = f.symbol(base)
    if symbol:
        return symbol.space, f"((uint64_t)({symbol.address}) + {offset}ll)"
    if re.fullmatch(r"\d+|0x[0-9a-fA-F]+", base):
        return None, f"((uint64_t){base}ull + {offset}ll)"
    raise UnsupportedPTX(f"address {operand}")


def pointer(f: FunctionTranslator, space: str, operand: str, size: int, access: str, element: int) -> str:
    """A checked host pointer to `size` bytes. `access` is READ, WRITE or ATOMIC."""
    symbol_space, where = address(f, operand)
    if space in ("shared", "generic"):
        f.narrowest_access = min(f.narrowest_access, element)
    if space == "shared":
        return f"shared_pointer<{size}, {access}>(t, {where}, {f.site()}, context)"
    if space == "local" or symbol_space == "local":
        return f"local_pointer<{size}>(t, {where}, {f.site()})"
    if space == "param":
        if symbol_space == "param":
            return f"(uint8_t*)({where})"
        return f"parameter_pointer<{size}>(t, {where}, {f.site()})"
    count = "false" if space == "const" else "true"
    return f"global_pointer<{size}, {access}, {count}>(t, {where}, {f.site()}, context)"


def space_of(ins: Instruction) -> str:
    return (ins.one_of(*_SPACES.split()) or "generic").split("::")[0]


@translates("ld ldu", f"nc ca cg cs lu cv mmio unified {_ORDERS} {_SPACES}")
def load(f: FunctionTranslator, ins: Instruction) -> None:
    type_, size = ins.type, WIDTH[ins.type]
    if ins.has("volatile", "relaxed", "acquire"):
        f.emit("spin(t);")  # the thread may be waiting for another one to write
    source = pointer(f, space_of(ins), ins.operands[1], size * ins.vector, "READ", size)
    first = ins.operands[0]
    destinations = split_operands(first[1:-1]) if first.startswith("{") else [first]
    f.emit(f"{{ const uint8_t* from = {source};")
    for i, destination in enumerate(destinations):
        if destination == "_":
            continue
        written = f"b{size * 8}" if type_[0] in "bf" else type_
        c_type = SIGNED[size] if written[0] == "s" else UNSIGNED[size]
        f.write(destination, written, f"load<{c_type}>(from + {i * size})")
    f.emit("}")


@translates("st", f"wb cg cs wt mmio {_ORDERS} {_SPACES}")
def store(f: FunctionTranslator, ins: Instruction) -> None:
    size = WIDTH[ins.type]
    target = pointer(f, space_of(ins), ins.operands[0], size * ins.vector, "WRITE", size)
    second = ins.operands[1]
    sources = split_operands(second[1:-1]) if second.startswith("{") else [second]
    f.emit(f"{{ uint8_t* to = {target};")
    for i, source in enumerate(sources):
        f.emit(f"store<{UNSIGNED[size]}>(to + {i * size}, {f.bits(source, size, ins.type)});")
    f.emit("}")


@translates("cp", f"async commit_group wait_group wait_all ca cg {_SPACES}")
def asynchronous_copy(f: FunctionTranslator, ins: Instruction) -> None:
    """cp.async completes at once, which is one of the orders the ISA allows."""
    if ins.modifiers[0] != "async":
        raise UnsupportedPTX("cp other than cp.async")
    if ins.modifiers[1] in ("commit_group", "wait_group", "wait_all"):
        return
    if ins.modifiers[1] not in ("ca", "cg"):
        raise UnsupportedPTX("form of cp.async")
    operands = ins.operands[:-1] if ins.has("L2::cache_hint") else ins.operands
    size = int(operands[2], 0)
    f.narrowest_access = 1
    source_size = str(size)
    if len(operands) > 3:
        last = ins.scope.find(operands[3].lstrip("!"))
        if isinstance(last, Register) and last.type == "pred":
            raise UnsupportedPTX("cp.async with ignore-src")
        source_size = f.value(operands[3], "u32")
    to, from_ = address(f, operands[0])[1], address(f, operands[1])[1]
    f.emit(f"copy_async<{size}>(t, {to}, {from_}, {source_size}, {f.site()}, context);")


_ATOMICS = ("add", "min", "max", "inc", "dec", "and", "or", "xor", "exch", "cas")


@translates("atom red", f"{' '.join(_ATOMICS)} noftz {_ORDERS} {_SPACES}")
def atomic(f: FunctionTranslator, ins: Instruction) -> None:
    space, operation = space_of(ins), ins.require(*_ATOMICS)
    type_ = ins.require(*WIDTH)
    if type_ in ("b16", "b32", "b64", "b128") and operation in ("add", "min", "max", "inc", "dec"):
        raise UnsupportedPTX(f"atomic {operation} of {type_}")
    if operation == "min" and ins.has("noftz"):
        raise UnsupportedPTX("atomic min with .noftz")
    size = WIDTH[type_]
    returns = ins.opcode == "atom"
    destination = ins.operands[0] if returns else "_"
    where, *sources = ins.operands[1:] if returns else ins.operands
    if operation in ("cas", "exch"):
        f.emit("spin(t);")  # likely a lock or a retry loop: let others run
    f.emit(f"{{ uint8_t* where = {pointer(f, space, where, size * ins.vector, 'ATOMIC', size)};")
    if ins.vector == 1:
        _one_atomic(f, operation, type_, space, destination, sources, 0)
    else:
        targets = split_operands(destination[1:-1]) if destination != "_" else ["_"] * ins.vector
        for i, source in enumerate(split_operands(sources[0][1:-1])):
            _one_atomic(f, operation, type_, space, targets[i], [source], i * size)
    f.emit("}")


def _one_atomic(
    f: FunctionTranslator,
    operation: str,
    type_: str,
    space: str,
    target: str,
    sources: list[str],
    offset: int,
) -> None:
    size = WIDTH[type_]
    unsigned = UNSIGNED[size]
    f.emit(f"{{ uint8_t* cell = where + {offset}; {unsigned} old = load<{unsigned}>(cell);")
    if operation == "cas":
        new = f"old == {f.bits(sources[0], size)} ? {f.bits(sources[1], size)} : old"
    elif operation == "exch":
        new = f.bits(sources[0], size, type_)
    elif type_[0] in "fb" and operation == "add":
        new = _atomic_float_add(f, type_, space, f.value(sources[0], type_))
    elif type_[0] in "fb" and operation not in ("and", "or", "xor"):
        raise UnsupportedPTX(f"atomic {operation} of {type_}")
    else:
        new = _atomic_integer(operation, type_, f.value(sources[0], type_))
    f.emit(f"store<{unsigned}>(cell, ({unsigned})({new}));")
    f.write(target, f"b{size * 8}", "old")
    f.emit("}")


def _atomic_integer(operation: str, type_: str, operand: str) -> str:
    size = WIDTH[type_]
    old = f"({SIGNED[size]})old" if type_[0] == "s" else "old"
    forms = {
        "add": f"old + ({UNSIGNED[size]})({operand})",
        "min": f"std::min({old}, {operand})",
        "max": f"std::max({old}, {operand})",
        "and": f"old & {operand}",
        "or": f"old | {operand}",
        "xor": f"old ^ {operand}",
        # PTX ISA 9.7.13: inc wraps to 0 at the operand; dec wraps to the operand at 0 or above it.
        "inc": f"(old >= {operand} ? 0 : old + 1)",
        "dec": f"((old == 0 || old > {operand}) ? {operand} : old - 1)",
    }
    return forms[operation]


def _atomic_float_add(f: FunctionTranslator, type_: str, space: str, operand: str) -> str:
    if type_ == "f32":
        # An f32 atomic add flushes subnormals in global memory, and keeps them in shared memory.
        plain = f"canonical(as_f32(old) + {operand})"
        flushed = f"flush(canonical(flush(as_f32(old)) + flush({operand})))"
        in_global = {"shared": "false", "global": "true"}.get(space, "(!is_shared(t, (uint64_t)where))")
        return f"to_bits({in_global} ? {flushed} : {plain})"
    if type_ == "f64":
        return f"to_bits(as_f64(old) + {operand})"
    narrow, widen = ("f32_to_half", "half_to_f32") if type_[0] == "f" else ("f32_to_bfloat", "bfloat_to_f32")
    if type_ in ("f16", "bf16"):
        return f"{narrow}({widen}(old) + {widen}({operand}))"
    low = f"{narrow}({widen}(old) + {widen}((uint16_t)({operand})))"
    high = f"{narrow}({widen}(old >> 16) + {widen}((uint16_t)(({operand}) >> 16)))"
    return f"(uint32_t){low} | ((uint32_t){high} << 16)"


@translates("cvta", f"to shared::cluster {_SPACES}")
def convert_address(f: FunctionTranslator, ins: Instruction) -> None:
    """Generic addresses are host addresses; only shared memory has addresses of its own."""
    value = f.bits(ins.operands[1], 8)
    if ins.has("shared", "shared::cta", "shared::cluster"):
        value = f"generic_to_shared(t, {value})" if ins.has("to") else f"shared_to_generic(t, {value})"
    f.write(ins.operands[0], "b64", value)


@translates("isspacep", f"shared::cluster {_SPACES}")
def is_space(f: FunctionTranslator, ins: Instruction) -> None:
    value, space = f.bits(ins.operands[1], 8), ins.modifiers[0].split("::")[0]
    forms = {
        "shared": f"is_shared(t, {value})",
        "local": f"is_local(t, {value})",
        "global": f"is_global(t, {value})",
        "const": f"read_only_space(t, {value}) == CONSTANT",
        "param": f"read_only_space(t, {value}) == PARAMETER",
    }
    f.write(ins.operands[0], "pred", forms[space])


@translates("mov")
def move(f: FunctionTranslator, ins: Instruction) -> None:
    target, source = ins.operands
    if ins.type == "pred":
        f.write(target, "pred", f.predicate(source))
        return
    size = WIDTH[ins.type]
    if target.startswith("{"):  # unpack
        parts = split_operands(target[1:-1])
        each = size // len(parts)
        f.emit(f"{{ {UNSIGNED[size]} packed = {f.bits(source, size)};")
        for i, part in enumerate(parts):
            f.write(part, f"b{each * 8}", f"packed >> {8 * each * i}")
        f.emit("}")
    elif source.startswith("{"):  # pack
        parts = split_operands(source[1:-1])
        each = size // len(parts)
        joined = " | ".join(f"(({UNSIGNED[size]})({f.bits(p, each)}) << {8 * each * i})" for i, p in enumerate(parts))
        f.write(target, f"b{size * 8}", joined)
    else:
        f.write(target, f"b{size * 8}", f.bits(source, size, ins.type))
