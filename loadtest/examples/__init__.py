"""Locustfiles for real protocols, to copy from; ``loadtest/PROTOCOLS.md`` explains them."""
