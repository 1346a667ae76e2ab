"""The batch that is being trained on: ``known`` trainers, what is caught of each, and its measurement."""
