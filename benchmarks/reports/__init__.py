"""Reports: what a run measured, as a file and as objects, and what every page about one has in common.

Nothing here imports another part of this project, so that whatever measures or reads reports can use it.
"""
