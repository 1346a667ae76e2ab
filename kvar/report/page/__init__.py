"""The HTML page of a report: its frame, its tables, its interactive parts, and the scripts that move them."""
