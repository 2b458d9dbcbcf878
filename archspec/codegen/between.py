"""The lines that run layers which pass values to one another beside x."""

from archspec.codegen.expression import printed_at
from archspec.lowering.program import Each, Passed, Run, Scoped, Substate


def running(each: Each, run: Run) -> list[str]:
    """The lines that run the layers of one period as often as it repeats."""
    where, step = f"self.{each.member}", len(run.layers)
    if run.repeat == 1:
        numbered = enumerate(run.layers, run.start)
        return [f"        {passing(each, layer, f'{where}[{i}]', str(i))}" for i, layer in numbered]
    if step > 1:
        numbers = ["i", *(f"i + {j}" for j in range(1, step))]
        calls = [passing(each, la, f"{where}[{i}]", i) for i, la in zip(numbers, run.layers, strict=True)]
        return [f"        for i in range({run.start}, {run.stop}, {step}):", *(f"            {call}" for call in calls)]
    layers = f"{where}[{run.start or ''}:{run.stop}]"
    head = f"for block in {layers}:"
    if any(isinstance(value, Substate | Scoped) for _, value in each.named):
        head = f"for i, block in enumerate({layers}{f', {run.start}' if run.start else ''}):"
    return [f"        {head}", f"            {passing(each, run.layers[0], 'block', 'i')}"]


def passing(each: Each, layer: Passed, block: str, number: str) -> str:
    """The call of one layer: `x, k, v = self.blocks[3](x, state=substate(state, 3))`."""
    named = [f"{name}={name}" for name in layer.reads]
    named += [f"{name}={printed_at(value, number)}" for name, value in each.named]
    return f"{', '.join([each.target, *layer.gives])} = {block}({', '.join([each.target, *named])})"
