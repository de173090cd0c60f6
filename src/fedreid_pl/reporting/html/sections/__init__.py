"""Sections of a report: each is a function from runs to HTML, empty if the runs lack the data."""
