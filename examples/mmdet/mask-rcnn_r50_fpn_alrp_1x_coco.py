"""Mask R-CNN with aLRP Loss (GIoU) and self-balancing in both stages, without sampling. Masks keep their loss."""

_base_ = "mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py"
custom_imports = dict(imports=["alrp_cuda.integrations.mmdet"])
custom_hooks = [dict(type="SelfBalanceHook")]
model = dict(
    rpn_head=dict(type="ALRPRPNHead", ranking=dict(balance="self"), bbox_coder=dict(target_stds=[0.1, 0.1, 0.2, 0.2])),
    roi_head=dict(bbox_head=dict(type="ALRPShared2FCBBoxHead", ranking=dict(balance="self"))),
    train_cfg=dict(
        rpn=dict(sampler=dict(_delete_=True, type="PseudoSampler")),
        rcnn=dict(sampler=dict(_delete_=True, type="PseudoSampler")),
    ),
)
