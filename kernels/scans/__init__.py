"""Linear recurrences whose states do not mix: element by element, one channel at a time."""
