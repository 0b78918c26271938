"""FCOS with aLRP Loss (GIoU) and self-balancing."""

_base_ = "mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py"
custom_imports = dict(imports=["alrp_cuda.integrations.mmdet"])
custom_hooks = [dict(type="SelfBalanceHook")]
model = dict(bbox_head=dict(type="ALRPFCOSHead", ranking=dict(balance="self")))
