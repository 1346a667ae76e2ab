"""Sentences computed from numbers and their intervals."""
