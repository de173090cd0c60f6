"""Study files, read as package data."""
