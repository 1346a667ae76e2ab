"""The output layer alone: its moments from what a forward pass read and gave there."""
