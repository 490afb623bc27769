"""Reading case documents in Markdown: every value with its line and column."""
