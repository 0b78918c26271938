"""What the losses cost beside what one would use instead: ``python -m bench``."""
