"""What a captured forward pass notes: which parameter meets the trajectories where, and in which operation."""
