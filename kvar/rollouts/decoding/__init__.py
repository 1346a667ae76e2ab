"""Drawing responses token by token from a cached model, and exactly where a cache or padding goes wrong."""
