"""The trial of a model at first use: batched, padded and cached passes say what each prefix alone says."""
