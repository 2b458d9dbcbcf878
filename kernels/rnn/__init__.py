"""Recurrences that no scan can parallelise."""
