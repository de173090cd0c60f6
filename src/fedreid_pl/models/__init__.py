"""Backbones, which server and clients exchange, and the local head."""
