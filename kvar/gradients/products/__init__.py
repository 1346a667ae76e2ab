"""Inner products of per-trajectory gradients of one parameter, in whichever form is cheapest.

Read ``blocks`` first: what a block answers, and the written-out one. ``factor`` is one use of a matrix, ``matrix`` the
sum of its uses, which chooses between Grams and writing out; ``token_gram`` one Gram over all tokens, ``stacked`` a
stack of experts' matrices.
"""
