"""The exchange that every call begins with: arguments that must agree, what went wrong on a rank, and a few numbers.

It has the same size whatever the call and its arguments are, so that ranks that disagree find out instead of waiting for one
another.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .channel import Channel

_ARGUMENT, _FAILURE, _NUMBERS = 24, 256, 2  # bytes of an argument's text (any float fits), of an error's; numbers of 8 bytes


class Arguments(NamedTuple):
    """What must be the same on every rank, by the name that a message gives it."""

    loss: str
    scope: str
    dtype: torch.dtype  # of the logits
    device: str  # their type of device
    algorithm: str
    delta: float
    eps: float
    skew: float = 1.0
    extras: str = "none"  # their shape but for P

    def texts(self) -> list[str]:
        return [str(value)[:_ARGUMENT] for value in self]


_NAMES = ("loss", "scope", "dtype of logits", "device of logits", "algorithm", "delta", "eps", "skew", "extras")


def _padded(text: str, size: int) -> bytes:
    return text.encode(errors="replace")[:size].ljust(size, b"\0")


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")


def exchange(
    channel: Channel, arguments: Arguments, numbers: Sequence[int], failure: ValueError | None, device: torch.device
) -> list[tuple[int, ...]]:
    """The numbers of every rank, at most two; raises on every rank where the arguments differ or a rank has failed.

    Raises:
        ValueError: ``failure``, or what names the rank that failed, or the argument that differs.
    """
    own = b"".join(_padded(text, _ARGUMENT) for text in arguments.texts())
    own += _padded(str(failure or ""), _FAILURE) + struct.pack(f"<{_NUMBERS}q", *numbers, *[0] * (_NUMBERS - len(numbers)))
    sent = torch.frombuffer(bytearray(own), dtype=torch.uint8).to(device)
    received = [_unpacked(part) for part in channel.gather(sent)]
    if failure is not None:
        raise failure
    for rank, (theirs, said, _) in enumerate(received):
        for name, value, other in zip(_NAMES, arguments.texts(), theirs, strict=True):
            if value != other:
                raise ValueError(
                    f"{name} must be the same on every rank of group, "
                    f"got {value} on rank {channel.rank} and {other} on rank {rank}"
                )
        if said:
            raise ValueError(f"on rank {rank} of group: {said}")
    return [values for _, _, values in received]


def _unpacked(part: Tensor) -> tuple[list[str], str, tuple[int, ...]]:
    raw = bytes(part.tolist())
    end = _ARGUMENT * len(_NAMES)
    texts = [_text(raw[begin : begin + _ARGUMENT]) for begin in range(0, end, _ARGUMENT)]
    return texts, _text(raw[end : end + _FAILURE]), struct.unpack(f"<{_NUMBERS}q", raw[end + _FAILURE :])
