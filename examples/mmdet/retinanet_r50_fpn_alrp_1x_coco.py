"""RetinaNet with aLRP Loss (GIoU) and self-balancing."""

_base_ = "mmdet::retinanet/retinanet_r50_fpn_1x_coco.py"
custom_imports = dict(imports=["alrp_cuda.integrations.mmdet"])
custom_hooks = [dict(type="SelfBalanceHook")]
model = dict(
    bbox_head=dict(
        type="ALRPRetinaHead",
        ranking=dict(balance="self"),
        bbox_coder=dict(target_stds=[0.1, 0.1, 0.2, 0.2]),  # as in the published code
    )
)
