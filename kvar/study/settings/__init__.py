"""Read, check and describe the settings of a run."""
