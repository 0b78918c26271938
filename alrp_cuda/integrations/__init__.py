"""Ranking losses inside detector frameworks: one module a framework, each imported only by whoever uses that framework."""
