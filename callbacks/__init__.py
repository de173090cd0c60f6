"""Federated algorithms, one file each; the file's name is its key under `callbacks` in a configuration."""
