"""The parts of a report, each a function from runs to the HTML of its section; empty where nothing is known."""
