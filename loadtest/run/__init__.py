"""How a test is driven: its options, its course, its clock, and its end."""
