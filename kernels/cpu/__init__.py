"""Loops that Numba compiles for CPUs, one file a family whose time PyTorch calls would leave to memory traffic."""
