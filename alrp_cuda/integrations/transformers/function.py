"""What takes the place of a model's loss function."""

from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any

from torch import Tensor

from ..queries import BOX_LOSS, CLASS_LOSS, QueryRanking
from .criteria import CRITERIA


@dataclass(frozen=True, eq=False)
class RankedLossFunction:
    """A detector's loss function with a criterion that ranks. No module, or the model would have it among its own.

    Args:
        own: the detector's, of those in ``CRITERIA``.
        ranking: the losses of an output.
    """

    own: FunctionType
    ranking: QueryRanking

    def __call__(self, *arguments: Any, **others: Any) -> tuple[Tensor, dict[str, Tensor], Any]:
        """As ``own``: from outputs and labels of a batch the loss, its parts by name, and the auxiliary outputs."""
        name, criterion = CRITERIA[self.own]
        # The function makes its criterion in each call, by a name of its module. This one is the same code, for which that name
        # stands for ours; whoever else uses the module sees nothing of it.
        function = FunctionType(
            self.own.__code__,
            {**self.own.__globals__, name: partial(criterion, self.ranking)},
            self.own.__name__,
            self.own.__defaults__,
            self.own.__closure__,
        )
        function.__kwdefaults__ = self.own.__kwdefaults__
        loss, losses, auxiliary = function(*arguments, **others)
        if not criterion.like_rt_detr:  # which adds them up itself
            loss = loss + sum(value for key, value in losses.items() if key.startswith((CLASS_LOSS, BOX_LOSS)))
        return loss, losses, auxiliary
