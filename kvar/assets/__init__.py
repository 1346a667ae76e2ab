"""Configs that users start from, and the teachers that ship with kvar."""
