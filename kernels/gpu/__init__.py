"""Triton kernels for GPUs, one file an operation family; imported when the first tensor on a GPU needs them."""
