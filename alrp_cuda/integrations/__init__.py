"""Ranking losses in detector frameworks: one package for each, which only its users import, over the loss in ``ranking``."""
