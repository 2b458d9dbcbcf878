"""Declarations of ways to start the weights; one file a kind."""
