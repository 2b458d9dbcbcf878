"""Declarations of norms; one file a kind."""
