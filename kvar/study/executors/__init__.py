"""Where the cells of a study run: this process, processes of this machine, or a Ray cluster."""
