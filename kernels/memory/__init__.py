"""Recurrences over a matrix S (K, V) a head: linear attention, state-space duality, delta rules."""
