"""The functions of ``import kvar``, one per file: ``kvar.measure``, ``kvar.watch`` and ``kvar.load``."""
