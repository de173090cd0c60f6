"""Inspection of a run's last round: ranked lists, confusions, CMC curves and feature plots."""
