"""Checks of what the caller passes that need no look at the values in a tensor: types, dtypes, shapes, devices, ranges.

Every message names the argument, what was expected and what came. What depends on values (labels, the number of
positives) is checked where the labels are read: by the backends, and by the reference.
"""

import math
import numbers
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from .native import _C

FLOATING = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
SIGNED = (torch.int8, torch.int16, torch.int32, torch.int64)
UNSIGNED = (torch.uint8, torch.uint16, torch.uint32, torch.uint64)
INTEGER = SIGNED + UNSIGNED
LABELS = (torch.bool, *INTEGER, *FLOATING)
ORDERS = ("smooth", "hard")
# In the order of the enumerations in csrc/ranking.h.
LOSSES = ("alrp", "alrp_hard", "ap", "ap_interpolated", "ndcg", "rank_sort")
ALGORITHMS = ("tiled", "sorted")
SCOPES = ("batch", "image")


class Layout(NamedTuple):
    """How targets label logits: ``classes == 0`` is one label a logit, else one class index per row of ``classes``.
    ``continuous``: one label a logit, and a positive's is any finite number above 0.

    Logits without a class, shape (..., 0), have nothing to label and count as the first form.
    """

    classes: int
    background: int
    continuous: bool = False


FLAT = Layout(0, 0)  # one label a logit

Tensors = Tensor | list[Tensor] | tuple[Tensor, ...]  # as a caller passes logits and targets


class Labelled(NamedTuple):
    """Logits and their labels, checked. Positives are ordered by the flat index of the tensors' concatenation.

    Attributes:
        logits: one tensor or more, as they lie in memory.
        targets: those of one tensor as they came; of several, one flat tensor: labels are few beside logits.
        layout: how they label.
        is_list: whether the caller gave a list, of one tensor or more.
    """

    logits: tuple[Tensor, ...]
    targets: Tensor
    layout: Layout
    is_list: bool

    @property
    def size(self) -> int:
        """The number of logits."""
        return sum(v.numel() for v in self.logits)

    @property
    def rows(self) -> list[int]:
        """The number of labels of each tensor that has logits."""
        return [v.numel() // max(1, self.layout.classes) for v in self.logits]

    def joined(self) -> tuple[Tensor, Tensor]:
        """The logits in one tensor, those of a list in the order of its tensors, and their targets."""
        if not self.is_list:
            return self.logits[0], self.targets
        form = (-1, self.layout.classes) if self.layout.classes else (-1,)
        return torch.cat([v.reshape(form) for v in self.logits]), self.targets.reshape(-1)

    def image_index(self) -> Tensor:
        """The image of each label of a list, which is the first dimension of every tensor, in the order of ``joined``."""
        n = len(self.logits[0])
        index = [torch.arange(n).repeat_interleave(rows // max(1, n)) for rows in self.rows]
        return torch.cat(index).to(self.logits[0].device)


def _names(dtypes: tuple[torch.dtype, ...]) -> str:
    return ", ".join(str(d).removeprefix("torch.") for d in dtypes)


def check_tensor(name: str, value: object, dtypes: tuple[torch.dtype, ...]) -> None:
    """Raise TypeError unless ``value`` is a dense tensor of one of ``dtypes``."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if value.layout != torch.strided:
        raise TypeError(f"{name} must be a dense (strided) tensor, got layout {value.layout}")
    if value.dtype not in dtypes:
        raise TypeError(f"{name} must have one of the dtypes {_names(dtypes)}, got {value.dtype}")


def check_background(background: object) -> None:
    """Raise unless ``background`` is None or a class index >= 0."""
    if background is None:
        return
    if isinstance(background, bool) or not isinstance(background, numbers.Integral):
        raise TypeError(f"background must be an int or None, got {type(background).__name__}")
    if background < 0:
        raise ValueError(f"background must be a class index >= 0 (negative targets are ignored anchors), got {background}")


def check_targets(logits: Tensor, targets: Tensor, background: int | None, entry: str = "") -> Layout:
    """Check logits against targets and return which of the two forms the targets have.

    Flat targets have the logits' shape; class-index targets lack its last dimension, C. ``background`` belongs to the
    second form only and defaults to C. ``entry``: "[2]" where the tensors are the third of a list.

    Raises:
        TypeError: not tensors, or a dtype that cannot label.
        ValueError: shapes that do not fit, other devices, a background below 0 or given with flat targets.
    """
    _check_pair(logits, targets, LABELS, entry)
    check_background(background)
    if targets.shape == logits.shape:
        if background is not None:
            raise ValueError(
                f"background must be None for targets of the logits' shape {tuple(logits.shape)}: it is a class index, "
                f"got {background}"
            )
        return FLAT
    if logits.dim() == 0 or targets.shape != logits.shape[:-1]:
        raise ValueError(
            f"targets{entry} must have the logits' shape {tuple(logits.shape)}, or that shape without its last dimension for "
            f"class indices, got {tuple(targets.shape)}"
        )
    if targets.dtype not in INTEGER:
        raise TypeError(
            f"targets{entry} that are class indices must have one of the dtypes {_names(INTEGER)}, got {targets.dtype}"
        )
    classes = logits.shape[-1]
    return Layout(classes, classes if background is None else int(background))


def check_continuous_targets(logits: Tensor, targets: Tensor, entry: str = "") -> Layout:
    """Check logits against targets of the same shape that hold continuous labels.

    Raises:
        TypeError: not tensors, or a dtype that is not floating.
        ValueError: another shape or device.
    """
    _check_pair(logits, targets, FLOATING, entry)
    if targets.shape != logits.shape:
        raise ValueError(f"targets{entry} must have the logits' shape {tuple(logits.shape)}, got {tuple(targets.shape)}")
    return Layout(0, 0, continuous=True)


def _check_pair(logits: Tensor, targets: Tensor, labels: tuple[torch.dtype, ...], entry: str) -> None:
    check_tensor("logits" + entry, logits, FLOATING)
    check_tensor("targets" + entry, targets, labels)
    if targets.device != logits.device:
        raise ValueError(f"targets{entry} must be on the device of logits{entry}, {logits.device}, got {targets.device}")


def check_labelled(logits: Tensors, targets: Tensors, background: int | None) -> Labelled:
    """:func:`check_targets` of one tensor, or of lists of tensors that are ranked together.

    Raises:
        TypeError, ValueError: as there, naming the entry; one list without the other, another length, none in it; entries of
            several dtypes, devices, forms of targets or numbers of classes.
    """
    return _labelled(logits, targets, partial(check_targets, background=background))


def check_continuously_labelled(logits: Tensors, targets: Tensors) -> Labelled:
    """:func:`check_continuous_targets` of one tensor, or of lists of tensors that are ranked together; raises as
    :func:`check_labelled`."""
    return _labelled(logits, targets, check_continuous_targets)


def _labelled(logits: Tensors, targets: Tensors, check: Callable[..., Layout]) -> Labelled:
    if not isinstance(logits, (list, tuple)):
        return Labelled((logits,), targets, check(logits, targets), False)  # type: ignore[arg-type]
    if not isinstance(targets, (list, tuple)):
        raise TypeError(f"targets must be a list of tensors, as logits is, got {type(targets).__name__}")
    if not logits:
        raise ValueError("logits must be a tensor or a list of at least one, got an empty list")
    if len(targets) != len(logits):
        raise ValueError(f"targets must be a list of {len(logits)} tensors, as logits is, got {len(targets)}")
    layouts = [check(v, t, entry=f"[{k}]") for k, (v, t) in enumerate(zip(logits, targets, strict=True))]
    for k in range(1, len(logits)):
        _check_alike(logits, targets, k)
    # Labels are few beside logits: one tensor of them, while the logits stay where they are.
    labels = targets[0] if len(targets) == 1 else torch.cat([t.reshape(-1) for t in targets])
    return Labelled(tuple(logits), labels, layouts[0], True)


def _check_alike(logits: Sequence[Tensor], targets: Sequence[Tensor], k: int) -> None:
    """Raise unless the k-th logits and targets of a list are of the kind of the first."""
    for name, tensors in (("logits", logits), ("targets", targets)):
        if tensors[k].dtype != tensors[0].dtype:
            raise TypeError(f"{name}[{k}] must have the dtype of {name}[0], {tensors[0].dtype}, got {tensors[k].dtype}")
    if logits[k].device != logits[0].device:
        raise ValueError(f"logits[{k}] must be on the device of logits[0], {logits[0].device}, got {logits[k].device}")
    form, first = ("one label a logit" if targets[i].shape == logits[i].shape else "class indices" for i in (k, 0))
    if form != first:
        raise ValueError(f"targets[{k}] must be {first}, as targets[0], got {form}: shape {tuple(targets[k].shape)}")
    if form == "class indices" and logits[k].shape[-1] != logits[0].shape[-1]:
        raise ValueError(
            f"logits[{k}] must have as many classes as logits[0], {logits[0].shape[-1]}, got shape {tuple(logits[k].shape)}"
        )


def check_loc_errors(logits: Tensor, loc_errors: Tensor) -> None:
    """Check that loc_errors is a floating (P,) tensor beside the logits; its length is compared with P where P is known."""
    check_tensor("loc_errors", loc_errors, FLOATING)
    if loc_errors.device != logits.device:
        raise ValueError(f"loc_errors must be on the device of logits, {logits.device}, got {loc_errors.device}")
    if loc_errors.dim() != 1:
        raise ValueError(f"loc_errors must have shape (P,), one error per positive, got shape {tuple(loc_errors.shape)}")


def check_scope(scope: str, image_index: Tensor | None, given: Labelled, num_positives: object = None) -> None:
    """Check ``scope`` and that ``image_index`` goes with it: one integer an anchor or, with flat targets, a logit; on the
    logits' device or, where ``num_positives`` is a list, the CPU. Of lists, the first dimension is the image.
    """
    check_choice("scope", scope, SCOPES)
    if scope == "batch":
        if image_index is not None:
            raise ValueError("image_index must be None for scope 'batch', got a tensor")
        return
    if given.is_list:
        _check_first_dimension(image_index, given, num_positives)
        return
    [logits], targets, layout, _ = given
    if image_index is None:
        raise ValueError("image_index must be given for scope 'image', got None")
    check_tensor("image_index", image_index, INTEGER)
    if image_index.device != logits.device and not (isinstance(num_positives, list) and image_index.is_cpu):
        raise ValueError(f"image_index must be on the device of logits, {logits.device}, got {image_index.device}")
    shape, shapes = tuple(image_index.shape), [tuple(targets.shape)]
    if layout.classes == 0 and logits.dim():
        shapes.append(tuple(logits.shape[:-1]))
    if shape not in shapes:
        raise ValueError(f"image_index must have shape {' or '.join(map(str, shapes))}, one index per anchor, got {shape}")


def _check_first_dimension(image_index: object, given: Labelled, num_positives: object) -> None:
    if image_index is not None:
        raise ValueError("image_index must be None for lists, where the first dimension of every tensor is the image")
    logits = given.logits
    for k, v in enumerate(logits):
        if v.dim() <= (given.layout.classes > 0) or v.shape[0] != logits[0].shape[0]:
            raise ValueError(
                f"logits[{k}] must have the images as first dimension for scope 'image', as many as logits[0], "
                f"got shapes {tuple(v.shape)} and {tuple(logits[0].shape)}"
            )
    if isinstance(num_positives, list):
        check_images(num_positives, len(logits[0]), ascend=True)


def is_finite(number: float) -> bool:
    """math.isfinite, in comparisons: torch.compile can follow those of a symbolic number."""
    return -math.inf < number < math.inf


def check_number(name: str, value: object) -> float:
    """Raise unless ``value`` is a real, finite number >= 0 (``delta``, ``eps``); return it as a float."""
    # float first: what an abstract class is asked goes through a cache of its own.
    if isinstance(value, bool) or not isinstance(value, (float, numbers.Real)):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    number = float(value)
    if not is_finite(number) or number < 0:
        raise ValueError(f"{name} must be finite and >= 0, got {value}")
    return number


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def choose_algorithm(name: str) -> int:
    """The operators' number for an algorithm, -1 for "auto"; raises ValueError for another name."""
    check_choice("algorithm", name, ("auto", *ALGORITHMS))
    return -1 if name == "auto" else ALGORITHMS.index(name)


def check_device(logits: Tensor) -> None:
    """Raise ValueError for logits on a device without a backend."""
    # First without the name of the device, for which torch makes and looks up a string.
    if not logits.is_cpu and logits.device.type not in _C.built_backends:
        raise ValueError(
            f"logits must be on a device with a backend ({', '.join(_C.built_backends)}), got {logits.device}; "
            f"alrp_cuda.reference works on any device"
        )


def check_flag(name: str, value: object) -> None:
    """Raise TypeError unless ``value`` is a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, got {type(value).__name__}")


def check_count(name: str, value: object) -> None:
    """Raise unless ``value`` is None or an integer >= 0."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, numbers.Integral)):
        raise TypeError(f"{name} must be an int or None, got {type(value).__name__}")
    if value < 0:
        raise ValueError(f"{name} must be >= 0, got {value}")


def check_num_positives(value: object, scope: str) -> int | list[int] | None:
    """Raise unless ``value`` is None, an integer >= 0 or, for scope "image", a sequence of them; return plain integers."""
    if scope == "image" and isinstance(value, Sequence) and not isinstance(value, str):
        for k, number in enumerate(value):
            if number is None:
                raise TypeError(f"num_positives[{k}] must be an int, got NoneType")
            check_count(f"num_positives[{k}]", number)
        return [int(number) for number in value]
    if scope == "image" and not isinstance(value, numbers.Integral | None):
        raise TypeError(f"num_positives must be an int, a sequence of them, one an image, or None, got {type(value).__name__}")
    check_count("num_positives", value)
    return None if value is None else int(value)  # type: ignore[call-overload]


def check_images(given: list[int], images: int, ascend: bool) -> None:
    """Raise ValueError unless ``num_positives`` has a number for each image, in the order of their rows."""
    if not ascend:
        raise ValueError("image_index must ascend where num_positives has one number an image, got another order")
    if len(given) != images:
        raise ValueError(f"num_positives must have one number for each of the {images} images, got {len(given)}")


def check_positives_of_images(given: int | list[int] | None, found: list[int], ascend: bool) -> None:
    """Raise ValueError where ``num_positives`` is other than what images hold: in all, or each."""
    if not isinstance(given, list):
        check_positives("num_positives", given, sum(found))
        return
    check_images(given, len(found), ascend)
    for k, (expected, count) in enumerate(zip(given, found, strict=True)):
        check_positives(f"num_positives[{k}]", expected, count)


def check_positives(name: str, expected: int | None, found: int) -> None:
    """Raise ValueError where the caller gave another number of positives than the targets hold."""
    if expected is not None and expected != found:
        raise ValueError(_C.positives_message(name, expected, found))


def bad_label(layout: Layout) -> ValueError:
    """The error for targets that hold a value which is no label."""
    return ValueError(_C.label_message(*layout))
