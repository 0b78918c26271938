"""What a training loop signals to the losses."""

from typing import Any

from mmdet.registry import HOOKS
from mmengine.hooks import Hook

from ...balance import SelfBalance


@HOOKS.register_module()
class SelfBalanceHook(Hook):
    """Ends the epochs of self-balancing (``ranking=dict(balance="self")``) with those of an epoch-based training loop."""

    def after_train_epoch(self, runner: Any) -> None:
        for module in runner.model.modules():
            if isinstance(module, SelfBalance) and module.epoch_length is None:
                module.end_epoch()
