"""The figures of a report, by run and by method."""
