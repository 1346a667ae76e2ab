"""What ``import kvar`` offers by itself, one name a file: ``kvar.measure`` and ``kvar.load``."""
