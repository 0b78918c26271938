"""ATSS with aLRP Loss (GIoU) and self-balancing."""

_base_ = "mmdet::atss/atss_r50_fpn_1x_coco.py"
custom_imports = dict(imports=["alrp_cuda.integrations.mmdet"])
custom_hooks = [dict(type="SelfBalanceHook")]
model = dict(bbox_head=dict(type="ALRPATSSHead", ranking=dict(balance="self")))
