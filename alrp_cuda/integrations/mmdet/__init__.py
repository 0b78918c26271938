"""aLRP, AP, NDCG and Rank & Sort Loss in the heads of MMDetection 3.

Importing this package registers the heads; a config does so by

    custom_imports = dict(imports=["alrp_cuda.integrations.mmdet"])
    model = dict(bbox_head=dict(type="ALRPRetinaHead"))

| type | in the place of | detector |
|---|---|---|
| ALRPRetinaHead | RetinaHead | RetinaNet |
| ALRPATSSHead | ATSSHead | ATSS |
| ALRPFCOSHead | FCOSHead | FCOS |
| ALRPFoveaHead | FoveaHead | FoveaBox |
| ALRPRPNHead | RPNHead | the first stage of Faster, Mask and Cascade R-CNN |
| ALRPShared2FCBBoxHead | Shared2FCBBoxHead | their later stages |

Each takes the arguments of the head that it replaces, and ``ranking``, the arguments of :class:`RankingLoss`.
``SelfBalanceHook`` is for ``custom_hooks``. :class:`AnchorRanking`, :class:`PointRanking` and :class:`RoIRanking` do the same for
other heads.
"""

from .anchors import ALRPATSSHead, ALRPRetinaHead, ALRPRPNHead, AnchorRanking
from .hooks import SelfBalanceHook
from .points import ALRPFCOSHead, ALRPFoveaHead, PointRanking
from .ranking import RankingLoss
from .regions import ALRPShared2FCBBoxHead, RoIRanking

__all__ = [
    "ALRPATSSHead",
    "ALRPFCOSHead",
    "ALRPFoveaHead",
    "ALRPRPNHead",
    "ALRPRetinaHead",
    "ALRPShared2FCBBoxHead",
    "AnchorRanking",
    "PointRanking",
    "RankingLoss",
    "RoIRanking",
    "SelfBalanceHook",
]
