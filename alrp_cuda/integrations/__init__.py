"""Ranking losses inside detector frameworks, one module a framework; each is imported by its users only."""
