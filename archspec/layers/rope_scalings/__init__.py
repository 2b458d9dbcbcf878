"""Declarations of ways to stretch RoPE to longer texts; one file a kind."""
