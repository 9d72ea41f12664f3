"""What is fuzzed: a module for each target, with ``check(data)``."""
