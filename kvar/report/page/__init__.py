"""The HTML page of a report: frame, tables, interactive parts and scripts."""
