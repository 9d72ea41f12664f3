"""Judging: whether a server is slower than another, by the reports of both, and why that may be unclear."""
