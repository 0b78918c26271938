"""What only a GPU can tell, in parts that each end in minutes and go on where they stopped: ``make gpu-check``, docs/gpu.md."""
