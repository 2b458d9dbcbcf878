"""Modules of norms; one file a kind."""
