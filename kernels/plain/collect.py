"""What a forward pass collects beside its output: losses and counts of layers, nested as the state is."""

from archspec.kernels.plain.state import State, substate

Scope = State  # a checkpoint that computes a layer again puts the same values under the same names


def scope(aux: Scope | None, key: str) -> Scope | None:
    """What the layer at `key` collects; None stays None."""
    return substate(aux, key)
