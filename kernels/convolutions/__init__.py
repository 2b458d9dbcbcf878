"""Causal convolutions along the sequence, short and as long as it, and the filters of state spaces."""
