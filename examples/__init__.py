"""Programs that show the losses at work; run from the repository's root."""
