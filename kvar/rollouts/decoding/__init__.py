"""Drawing responses token by token.

``decoding`` is the interface and the loop over tokens; ``cached`` the way with a cache, ``exact`` the two slower ways
for models that go wrong with it; ``draw`` chooses tokens from logits, ``cache`` and ``encoded`` handle the rows of what
a model keeps.
"""
