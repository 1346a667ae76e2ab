"""Moments of the language-model head alone, from a forward pass, without a backward pass.

``head_moments`` is the arithmetic on the head's inputs and logits; ``head_watch`` takes these from a forward pass that
a training step makes anyway.
"""
