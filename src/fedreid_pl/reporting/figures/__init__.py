"""Figures for papers with matplotlib, which is imported only when one is drawn."""
