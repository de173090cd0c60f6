"""report.html: one file without scripts or requests; charts are SVG, and every chart has a table."""
