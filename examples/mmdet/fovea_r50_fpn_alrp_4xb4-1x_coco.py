"""FoveaBox with aLRP Loss (GIoU) and self-balancing."""

_base_ = "mmdet::foveabox/fovea_r50_fpn_4xb4-1x_coco.py"
custom_imports = dict(imports=["alrp_cuda.integrations.mmdet"])
custom_hooks = [dict(type="SelfBalanceHook")]
model = dict(bbox_head=dict(type="ALRPFoveaHead", ranking=dict(balance="self")))
