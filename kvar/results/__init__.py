"""What runs and studies came to, computed from their records: usable in a script without any page."""
