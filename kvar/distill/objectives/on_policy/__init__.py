"""Policy-gradient objectives on the student's own responses."""
