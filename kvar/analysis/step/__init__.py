"""Statistics of one optimiser step's gradient under a design of M prompts x R rollouts."""
