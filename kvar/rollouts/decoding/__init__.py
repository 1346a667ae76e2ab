"""Drawing responses token by token.

``decoding`` is the interface and the loop over tokens; ``cached`` decodes with a cache, ``exact`` in two slower ways
for models that are wrong with one; ``draw`` chooses tokens from logits, ``cache`` and ``encoded`` handle rows of a
model's state.
"""
