"""Transformers' detectors, small and with random weights."""

import torch
import transformers as hf

CLASSES = 3
SIDE = 64

HYBRID = {
    "encoder_hidden_dim": 32,
    "encoder_in_channels": [16, 24, 32],
    "encoder_ffn_dim": 32,
    "encoder_attention_heads": 2,
    "d_model": 32,
    "num_queries": 20,
    "decoder_in_channels": [32, 32, 32],
    "decoder_ffn_dim": 32,
    "decoder_n_points": 2,
    "decoder_layers": 3,
    "decoder_attention_heads": 2,
    "num_denoising": 10,
    "freeze_backbone_batch_norms": False,
}
DECODER = {"decoder_ffn_dim": 32, "decoder_layers": 3, "d_model": 32, "num_queries": 20, "auxiliary_loss": True}
ENCODER = {"encoder_layers": 1, "encoder_ffn_dim": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "dropout": 0.0}


def rt_resnet() -> hf.RTDetrResNetConfig:
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "layer_type": "basic"}
    return hf.RTDetrResNetConfig(**sizes, out_features=["stage2", "stage3", "stage4"])


def hgnet() -> hf.HGNetV2Config:
    return hf.HGNetV2Config(
        stem_channels=[3, 8, 8],
        stage_in_channels=[8, 8, 16, 24],
        stage_mid_channels=[8, 8, 8, 8],
        stage_out_channels=[8, 16, 24, 32],
        stage_num_blocks=[1, 1, 1, 1],
        stage_numb_of_layers=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 24, 32],
        out_indices=[2, 3, 4],
    )


def resnet() -> hf.ResNetConfig:
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "layer_type": "basic"}
    return hf.ResNetConfig(**sizes, out_features=["stage2", "stage3", "stage4"])


def vit() -> hf.LwDetrViTConfig:
    return hf.LwDetrViTConfig(
        image_size=SIDE,
        pretrain_image_size=SIDE,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_windows=4,
        window_block_indices=[0],
        out_indices=[1, 2],
    )


def config(name: str, **others) -> hf.PreTrainedConfig:
    if name in ("rt_detr", "rt_detr_v2"):
        kind = {"rt_detr": hf.RTDetrConfig, "rt_detr_v2": hf.RTDetrV2Config}[name]
        return kind(**{"backbone_config": rt_resnet(), "num_labels": CLASSES, **HYBRID, **others})
    if name in ("d_fine", "deimv2"):
        kind = {"d_fine": hf.DFineConfig, "deimv2": hf.Deimv2Config}[name]
        return kind(**{"backbone_config": hgnet(), "num_labels": CLASSES, **HYBRID, **others})
    if name == "lw_detr":
        heads = {"decoder_self_attention_heads": 2, "decoder_cross_attention_heads": 2, "decoder_n_points": 2}
        sizes = {"projector_scale_factors": [1.0], "c2f_num_blocks": 1, "group_detr": 3, "num_queries": 10}
        return hf.LwDetrConfig(**{"backbone_config": vit(), "num_labels": CLASSES, **DECODER, **heads, **sizes, **others})
    kind = {"deformable_detr": hf.DeformableDetrConfig, "conditional_detr": hf.ConditionalDetrConfig}[name]
    own = {"num_feature_levels": 3} if name == "deformable_detr" else {}
    return kind(**{"backbone_config": resnet(), "num_labels": CLASSES, **DECODER, **ENCODER, **own, **others})


def build(name: str, **others) -> hf.PreTrainedModel:
    torch.manual_seed(0)
    return hf.AutoModelForObjectDetection.from_config(config(name, **others)).train()
