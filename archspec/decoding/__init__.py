"""What a model keeps while it decodes, as one value: made, measured, copied, reordered, cut, joined and stored.

A model fills a dict, and an empty one is all that it asks for. A `State` is such a dict that knows of which spec it is,
and so which axis of each tensor counts sequences and which one tokens.
"""

from archspec.decoding.state import State, new_state

__all__ = ["State", "new_state"]
