"""Ranking losses inside detector frameworks, one module or package a framework; each is imported by its users only."""
