"""Divergences of next-token distributions, summed over the vocabulary at every step of a response."""
