"""The settings of a run: reading, checking and explaining them."""
