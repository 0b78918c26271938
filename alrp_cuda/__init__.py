"""Ranking-based detection losses, exact and cheap, on the CPU and on CUDA devices."""

__version__ = "0.1.0"
