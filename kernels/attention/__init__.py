"""Softmax attention in all its forms: which keys are seen, how scores are biased, what is computed where."""
