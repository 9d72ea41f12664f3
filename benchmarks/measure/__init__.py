"""Measuring: scenarios, the servers that are measured in them, the load generator, and the runner."""
