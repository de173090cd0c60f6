"""Figures for papers with matplotlib; matplotlib is imported only when a figure is drawn."""
