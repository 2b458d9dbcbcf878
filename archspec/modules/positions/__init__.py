"""Modules of positions inside attention; one file a kind."""
