"""The loss of a head, with the defaults of ``use_alrp``."""

from typing import Any

from .. import ranking as core


class RankingLoss(core.RankingLoss):
    """The class and the box loss of one head; :func:`use_alrp` documents the arguments.

    The box loss of "ap" and "ndcg" is the model's own, that of "rank_sort" the mean of its errors for tau = 0.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**core.use_alrp_settings(**settings))

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "options" in state:  # of version 0.1, which had no ranking of its own
            options, order = state.pop("options"), state.pop("order")
            del options["backend"]
            new = RankingLoss(loss=state["loss"], tau=state["tau"], order=order, **options)
            state |= {"tau": new.tau, "loss_weight": 1.0}
            state["_modules"]["ranking"] = new.ranking
        super().__setstate__(state)  # type: ignore[no-untyped-call]
