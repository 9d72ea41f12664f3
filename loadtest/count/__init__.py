"""What is counted: requests by latency, the record of a run, its figures, and the generator's own health."""
