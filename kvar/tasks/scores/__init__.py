"""Metrics over generated texts, held as sums over examples."""
