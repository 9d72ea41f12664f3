"""Showing: reports and comparisons on a terminal, as a page, as Markdown, and while a run goes on."""
