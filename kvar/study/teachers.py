"""The teachers that ship inside the package, under the name that studies import them by."""

from kvar.distill.models.shipped import SHIPPED, resolve

__all__ = ["SHIPPED", "resolve"]
