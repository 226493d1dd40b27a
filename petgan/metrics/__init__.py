"""Scores as plain functions on arrays, NumPy and SciPy only."""
