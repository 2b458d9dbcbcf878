"""Modules of embeddings; one file a kind."""
