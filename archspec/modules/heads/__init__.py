"""Modules of heads; one file a kind."""
