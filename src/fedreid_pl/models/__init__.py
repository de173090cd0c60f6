"""Backbones and the local head."""
