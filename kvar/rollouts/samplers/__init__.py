"""Samplers that are not the student: any callable (``drawn``), and engines behind an address (``openai``)."""
