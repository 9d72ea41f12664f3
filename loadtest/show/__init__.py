"""What people and programs read of a run: report, page, tab of Locust's web page, tables, console."""
