"""Executors of a study's cells: this process, processes of this machine, or a Ray cluster."""
