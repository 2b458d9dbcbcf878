"""FLOPs of a training step as two trainers count them for their utilisation (MFU), with what sets them apart.

    Megatron-LM  3 (products of the forward pass), attention at half of all pairs, without routers
    torchtitan   6 N for each token, N being the active parameters outside the input table, norms and biases among them,
                 and 3 (products of attention over all pairs)

Sources: Megatron-LM `num_floating_point_operations`; torchtitan `get_dense_model_nparams_and_flops`. Megatron's adds
the norms of latent attention, which are no products; that term is left out here.
"""

from collections.abc import Sequence

from archspec.graph import Graph
from archspec.layers.ops import Attend, Embedding, Route
from archspec.passes.work import Line


def megatron(graph: Graph, every: Sequence[Line]) -> int:
    """The step's FLOPs in Megatron's dialect."""
    routers = _readers_of_route(graph)
    products = sum(line.times * line.forward for line in every if line.node.name not in routers)
    attention = sum(line.times * line.forward for line in every if isinstance(line.node.op, Attend))
    return 3 * products - 3 * attention // 2


def torchtitan(every: Sequence[Line], active: int, tied: bool) -> int:
    """The step's FLOPs in torchtitan's dialect; `active` are all parameters that a token uses.

    A table that is also the head counts as the head.
    """
    tables = sum(
        line.node.copies * p.numel
        for line in every
        if isinstance(line.node.op, Embedding) and not (tied and line.node.stack == every[-1].node.stack)
        for p in line.node.params
        if not p.buffer
    )
    attention = sum(line.times * line.forward for line in every if isinstance(line.node.op, Attend))
    run = every[-1].run
    return 6 * (active - tables) * run.B * run.T + 3 * attention


def _readers_of_route(graph: Graph) -> set[str]:
    """The ops whose result a choice of experts reads: the routers' logits."""
    routes = {node.name for node in graph.nodes if isinstance(node.op, Route)}
    return {source for source, reader in graph.edges if reader in routes}
