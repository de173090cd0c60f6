"""Federated person re-identification on PyTorch Lightning."""

__version__ = "0.1.0"
