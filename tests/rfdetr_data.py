"""Squares in the layout that RF-DETR reads, and a model that is smaller than its smallest."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rfdetr.models.backbone import dinov2

CLASSES = 3
SIDE = 64
SMALL = {
    "resolution": SIDE,
    "positional_encoding_size": SIDE // 16,
    "num_queries": 10,
    "num_select": 10,
    "num_classes": CLASSES,
    "pretrain_weights": None,  # random ones, and no network
    "device": "cpu",
    "out_feature_indexes": [1, 2],
    "hidden_dim": 32,
    "sa_nheads": 2,
    "ca_nheads": 2,
}
_get_config = dinov2.get_config


def get_config(*arguments: Any) -> dict[str, Any]:
    """The encoder's, with two of its layers; to take the place of ``dinov2.get_config``."""
    return {**_get_config(*arguments), "num_hidden_layers": 2}


def write(folder: Path) -> Path:
    """Coloured squares on noise; every third image has none."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("valid", 4)):
        (folder / split).mkdir(parents=True)
        images, annotations = [], []
        for number in range(count):
            image = rng.integers(0, 60, (SIDE, SIDE, 3)).astype(np.uint8)
            for _ in range(number % 3):
                label, size = int(rng.integers(CLASSES)), int(rng.integers(16, 30))
                x, y = (int(each) for each in rng.integers(0, SIDE - size, 2))
                image[y : y + size, x : x + size] = [220 if channel == label else 90 for channel in range(3)]
                corners = [x, y, x + size, y, x + size, y + size, x, y + size]
                own = {"id": len(annotations), "image_id": number, "category_id": label, "segmentation": [corners]}
                annotations.append({**own, "bbox": [x, y, size, size], "area": size * size, "iscrowd": 0})
            Image.fromarray(image).save(folder / split / f"{number}.png")
            images.append({"id": number, "file_name": f"{number}.png", "width": SIDE, "height": SIDE})
        categories = [{"id": label, "name": f"class{label}", "supercategory": "none"} for label in range(CLASSES)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / split / "_annotations.coco.json").write_text(json.dumps(content))
    return folder
