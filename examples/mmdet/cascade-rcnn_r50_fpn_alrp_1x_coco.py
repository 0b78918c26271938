"""Cascade R-CNN with aLRP Loss (GIoU) and self-balancing in all stages, without sampling. The tau of a stage is the IoU that its
positives have before it."""

_base_ = "mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py"
custom_imports = dict(imports=["alrp_cuda.integrations.mmdet"])
custom_hooks = [dict(type="SelfBalanceHook")]
stages = {0.5: [0.1, 0.1, 0.2, 0.2], 0.6: [0.05, 0.05, 0.1, 0.1], 0.7: [0.033, 0.033, 0.067, 0.067]}
model = dict(
    rpn_head=dict(type="ALRPRPNHead", ranking=dict(balance="self"), bbox_coder=dict(target_stds=[0.1, 0.1, 0.2, 0.2])),
    roi_head=dict(
        bbox_head=[
            dict(
                type="ALRPShared2FCBBoxHead",
                ranking=dict(balance="self", tau=tau),
                in_channels=256,
                fc_out_channels=1024,
                roi_feat_size=7,
                num_classes=80,
                bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_means=[0.0] * 4, target_stds=stds),
                reg_class_agnostic=True,
            )
            for tau, stds in stages.items()
        ]
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(_delete_=True, type="PseudoSampler")),
        rcnn=[
            dict(
                assigner=dict(type="MaxIoUAssigner", pos_iou_thr=tau, neg_iou_thr=tau, min_pos_iou=tau, match_low_quality=False),
                sampler=dict(type="PseudoSampler"),
                pos_weight=-1,
                debug=False,
            )
            for tau in stages
        ],
    ),
)
