"""Configs that users start from, and the teacher and students that ship with kvar."""
