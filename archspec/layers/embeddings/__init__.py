"""Declarations of embeddings; one file a kind."""
