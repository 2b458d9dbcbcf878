"""The same families in their plain form: PyTorch as one would write it by hand, for files that stand alone.

A function of `kernels/<room>/<family>.py` has here, in `plain/<family>.py`, a twin of the same name, parameters,
meaning and state. It is written to be read and to be cut down: whoever writes a file decides its branches by the
arguments that the model passes, so each idea is one `if <parameter>` with its comments inside. Autograd makes the
backward pass. Arguments are not checked, and a state that a failed call left half-way is not put back: `atomic` has no
plain form. Calls without tokens (T = 0) give none, but what PyTorch refuses (recurrent networks, the first of no
tokens) is its error, and a mean of nothing its NaN.
"""
