"""The tables of a report: for the terminal, by run, by method, and in the form of the paper."""
