"""Writes report.html: one file without scripts or requests. Charts are SVG, and every chart has a table."""
