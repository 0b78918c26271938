"""What the examples that train torchvision's detectors share: losses, measuring, watching, checkpoints, pictures."""
