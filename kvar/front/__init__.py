"""The functions of ``import kvar``, one per file: ``kvar.measure`` and ``kvar.load``."""
