"""``RFDETR.train``, which makes a module of Lightning each time, so that there is no criterion to change before."""

from functools import partial
from typing import Any

from rfdetr import RFDETR

from ..queries import QueryRanking
from .criterion import rank


def rank_training(model: RFDETR, ranking: QueryRanking) -> None:
    """Let ``model.train`` rank from now on, of this instance."""
    model.train = partial(_train, model, ranking)


def unrank_training(model: RFDETR) -> None:
    """Make ``model.train`` what it was before :func:`rank_training`, if it has been called."""
    vars(model).pop("train", None)


def _train(model: RFDETR, ranking: QueryRanking, **settings: Any) -> Any:
    """The class's own, for whose time the module that it imports and makes is one that ranks."""
    from rfdetr import training  # with Lightning, which only training needs

    own = training.RFDETRModelModule

    def make(*arguments: Any, **others: Any) -> Any:
        module = own(*arguments, **others)
        rank(module.criterion, ranking)
        return module

    training.RFDETRModelModule = make
    try:
        return type(model).train(model, **settings)
    finally:
        training.RFDETRModelModule = own
