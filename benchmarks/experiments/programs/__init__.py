"""What experiments run in processes of their own; none of these is a command for people."""
