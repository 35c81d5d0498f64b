"""Hanse: a federated model registry for edge AI."""
