"""Array functions for sequence models: plain, vectorised PyTorch, one operation family a file.

Nothing here knows of archspec: every function takes tensors and plain numbers, so that a file can be copied out and
used alone. Each file with a recurrence or a sum also holds `reference`, the naive definition that its tests trust.
"""
