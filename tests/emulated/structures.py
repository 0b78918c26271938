"""The structures of csrc/ranking.h and csrc/labels.h for ctypes, and torch tensors in their terms."""

import ctypes
from ctypes import POINTER, Structure, c_double, c_int32, c_int64, c_uint64, c_void_p

import torch

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)  # in the order of Dtype
UNSIGNED = (torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64)
# dtype: (bits of 1, bits of infinity)
FLOATING_LABELS = {
    torch.float32: (0x3F800000, 0x7F800000),
    torch.float64: (0x3FF0000000000000, 0x7FF0000000000000),
    torch.float16: (0x3C00, 0x7C00),
    torch.bfloat16: (0x3F80, 0x7F80),
}


class Array(Structure):
    _fields_ = [("data", c_void_p), ("dtype", c_int32)]

    @classmethod
    def of(cls, tensor: torch.Tensor | None) -> "Array":
        return cls(None, 0) if tensor is None else cls(tensor.data_ptr(), DTYPES.index(tensor.dtype))


class Labels(Structure):
    _fields_ = [
        ("data", c_void_p),
        ("bytes", c_int32),
        ("is_signed", c_int32),
        ("least", c_uint64),
        ("span", c_uint64),
        ("infinity", c_uint64),
        ("classes", c_int64),
        ("background", c_int64),
    ]

    @classmethod
    def of(cls, targets: torch.Tensor, layout: tuple[int, int], *, continuous: bool = False) -> "Labels":
        one, infinity = FLOATING_LABELS.get(targets.dtype, (1, 0))
        least, span = (1, infinity - 2) if continuous else (one, 0)
        signed = targets.dtype not in UNSIGNED
        return cls(targets.data_ptr(), targets.element_size(), signed, least, span, infinity, *layout)


class Input(Structure):
    _fields_ = [
        ("logits", Array),
        ("n", c_int64),
        ("labels", Labels),
        ("p", c_int64),
        ("delta", c_double),
        ("algorithm", c_int32),
        ("skew", c_double),
        ("others", c_int64),
    ]


class Spec(Structure):
    _fields_ = [("loss", c_int32), ("eps", c_double), ("loc_errors", Array), ("labels", Array), ("tie", c_double)]


class Tables(Structure):
    _fields_ = [(name, c_void_p) for name in ("index", "score", "share", "gradient", "error_gradient", "poison", "device")]

    @classmethod
    def of(cls, index: torch.Tensor, tables: torch.Tensor, device: int) -> "Tables":
        """``device``: how many elements of ``tables`` are the backend's own; they come first."""
        p, start = index.numel(), tables.data_ptr()
        rows = [start + 8 * (device + p * row) for row in range(4)]
        if tables.numel() - device != 4 * p + 1 or p == 0:
            rows[3] = None
        return cls(index.data_ptr(), *rows, start + 8 * (tables.numel() - 1), start)


class Output(Structure):
    _fields_ = [
        ("values", c_int32),
        ("cls", c_void_p),
        ("loc", c_void_p),
        ("rank", c_void_p),
        ("precision", c_void_p),
        ("tables", Tables),
        ("status", c_void_p),
    ]


class Gradients(Structure):
    _fields_ = [
        ("logits", Array),
        ("grad_cls", c_void_p),
        ("loc_errors", Array),
        ("grad_loc", c_void_p),
        ("grad_sort", c_void_p),
        ("incoming", c_int32),
    ]


class Sums(Structure):
    _fields_ = [(name, c_void_p) for name in ("place", "rank_pos", "n_fp", "s", "norm")]

    @classmethod
    def of(cls, place: torch.Tensor, sums: torch.Tensor) -> "Sums":
        """``sums``: score, rank_pos, n_fp and, for a skew, norm."""
        return cls(place.data_ptr(), sums[1].data_ptr(), sums[2].data_ptr(), None, sums[3].data_ptr() if len(sums) == 4 else None)


class Drive(Structure):
    _fields_ = [*((name, c_void_p) for name in ("place", "n_fp", "norm", "errors", "z")), ("eps", c_double)]


def declare(dll: ctypes.CDLL) -> None:
    """Argument and result types of tests/emulated/c_api.cpp."""
    signatures = {
        "alrp_workspace_bytes": [POINTER(Input), POINTER(ctypes.c_size_t)],
        "alrp_table_bytes": [POINTER(Input), POINTER(ctypes.c_size_t)],
        "alrp_forward": [POINTER(Input), POINTER(Spec), POINTER(Output), c_void_p, c_void_p],
        "alrp_sums": [POINTER(Input), POINTER(Sums), POINTER(Output), c_void_p, c_void_p],
        "alrp_drive": [POINTER(Input), POINTER(Drive), POINTER(Tables), c_void_p],
        "alrp_pair_product": [POINTER(Input), POINTER(Tables), c_void_p, c_void_p, c_int32, c_void_p, c_void_p],
        "alrp_find_positives": [POINTER(Input), POINTER(Tables), c_void_p, c_void_p, c_void_p, c_void_p],
        "alrp_part_size": [POINTER(Input), POINTER(c_int64)],
        "alrp_count_part": [POINTER(Input), POINTER(Tables), c_void_p, c_void_p, c_void_p, c_void_p],
        "alrp_forward_from_parts": [POINTER(Input), POINTER(Spec), c_void_p, c_void_p, POINTER(Output), c_void_p, c_void_p],
        "alrp_sums_from_parts": [POINTER(Input), POINTER(Sums), c_void_p, POINTER(Output), c_void_p],
        "alrp_backward": [POINTER(Input), POINTER(Tables), POINTER(Gradients), c_void_p],
        "alrp_count_positives": [POINTER(Input), c_void_p, c_void_p, c_void_p],
    }
    for name, arguments in signatures.items():
        function = getattr(dll, name)
        function.argtypes = arguments
        function.restype = ctypes.c_char_p
