"""Declarations of heads; one file a kind."""
