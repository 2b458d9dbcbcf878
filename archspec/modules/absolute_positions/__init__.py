"""Modules of positions added to the embedding; one file a kind."""
