"""Inner products of per-trajectory gradients of one parameter, in whichever form is cheapest."""
