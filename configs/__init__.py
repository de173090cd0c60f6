"""Experiment files, read as package data."""
