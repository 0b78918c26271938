"""Torchvision's detectors, small ones, trained on any folder of images in COCO's format: ``python -m examples.train``."""
