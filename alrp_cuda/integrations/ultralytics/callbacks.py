"""What a trainer calls: it makes models, so that there is none to change before."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ultralytics.utils import RANK
from ultralytics.utils.torch_utils import unwrap_model

from ...balance import SelfBalance
from ..ranking import RankingLoss
from .criterion import RankedLoss, branches, check_model
from .prior import set_prior

BALANCE_FILE = "self_balance.pt"  # beside the checkpoints, which load without this package


@dataclass(frozen=True)
class Callbacks:
    """Sets the criterion of a trainer's model. Holds settings alone, and so reaches the processes of a parallel training."""

    ranking: dict[str, Any]
    labels: str
    dfl_weight: float
    prior_probability: float | None

    @property
    def by_event(self) -> dict[str, Any]:
        """The methods by the event that they answer to."""
        return {
            "on_pretrain_routine_end": self.set_criterion,
            "on_train_epoch_end": self.end_epoch,
            "on_model_save": self.save_balance,
        }

    def set_criterion(self, trainer: Any) -> None:
        """Once the model has been built, loaded, compiled and wrapped."""
        model, ema = unwrap_model(trainer.model), trainer.ema.ema
        check_model("model", model)
        if getattr(model, "class_weights", None) is not None:
            raise ValueError(f"cls_pw must be 0: a ranking weighs no classes, got {trainer.args.cls_pw}")
        criterion = getattr(model, "criterion", None) or model.init_criterion()  # a resumed one knows its epoch
        # The trainer multiplies the loss by the number of processes, since its own is a sum.
        world_size = trainer.world_size if RANK != -1 else 1
        for branch in branches(criterion):
            ranking = RankingLoss(**self.ranking).to(trainer.device)
            RankedLoss(branch, ranking, labels=self.labels, dfl_weight=self.dfl_weight, world_size=world_size)
        for each in (model, ema):  # that of the average is for the validation losses
            each.criterion = criterion
            if self.prior_probability is not None:
                set_prior(each, self.prior_probability)
        if trainer.resume and (file := Path(trainer.args.resume).with_name(BALANCE_FILE)).exists():
            for balance, state in zip(balances(trainer), torch.load(file, map_location=trainer.device), strict=False):
                balance.load_state_dict(state)

    def end_epoch(self, trainer: Any) -> None:
        """End the epochs of self-balancing with the trainer's, on every process."""
        for balance in balances(trainer):
            balance.end_epoch()

    def save_balance(self, trainer: Any) -> None:
        """Write the weights of self-balancing beside the checkpoint."""
        if states := [balance.state_dict() for balance in balances(trainer)]:
            torch.save(states, trainer.wdir / BALANCE_FILE)


def balances(trainer: Any) -> list[SelfBalance]:
    """Those of the criterion that is trained with."""
    rankings = [branch.loss.ranking for branch in branches(unwrap_model(trainer.model).criterion)]
    return [ranking.balance for ranking in rankings if isinstance(ranking.balance, SelfBalance)]
