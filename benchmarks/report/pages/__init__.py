"""A report as a page, a chapter in Markdown, and files to read on with."""
