"""What passes found, as text: tables for a terminal, Markdown, JSON and CSV; one file a pass."""
