"""From examples to batches of token ids, and the order in which they come."""
