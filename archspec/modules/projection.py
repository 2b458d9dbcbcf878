"""The linear layers of all components, made in one place.

Modules say which projection they want and never how it is made, so that a spec can ask for another kind (of low rank,
quantised) without a change to any of them. Generated files have `nn.Linear` itself.
"""

from torch import nn

from archspec.layers.base import Component


def linear(c: Component, name: str, d_in: int, d_out: int, bias: bool = True) -> nn.Linear:
    """The projection `name` of a component.

    Args:
        c: the config of the component that it belongs to.
        name: what the component calls it: the attribute that holds it.
        d_in: channels that it reads.
        d_out: channels that it writes.
        bias: whether it adds a learned vector.

    Returns:
        A module from (..., d_in) to (..., d_out).
    """
    return nn.Linear(d_in, d_out, bias=bias)
