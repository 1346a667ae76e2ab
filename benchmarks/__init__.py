"""Benchmarks: commands that measure, and the tables and plots they write."""
