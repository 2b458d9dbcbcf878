"""Array functions for sequence models, one operation family a file.

Nothing here knows of archspec: every function takes tensors and plain numbers, so that a file can be copied out and
used alone. A family has one public function with four faces that agree: `reference`, the naive definition in float64;
a vectorised PyTorch form, which runs everywhere; kernels for one kind of device, `gpu/` in Triton and `cpu/` in Numba,
where those are installed; and a step of one token from a state. `library` makes an operator of torch.library of them,
`backend` picks the face by device, `contract` checks arguments, `state` is what decoding keeps.
"""
