"""Batches of other trainers as rollouts: ``fields`` names what they hold, ``layout`` finds prompt and response."""
