"""Streams: several values that go from layer to layer in place of x."""

from typing import Any

import pytest
import torch

import archspec
from archspec.errors import SpecError

A = {"kind": "attention", "n_heads": 4, "position": "rope"}
FFN = {"kind": "mlp", "d_ff": 12, "activation": "gelu"}
TOP: dict[str, Any] = {"name": "streams", "d_model": 16, "vocab_size": 11, "head": "lm"}
TWO = {"start": ["a = x", "b = x"], "end": ["x = 1/2 * (a + b)"]}
LINES = ["a = a + mixer(norm1(b))", "b = b + ffn(norm2(a))"]
BLOCK = {"repeat": 3, "mixer": A, "ffn": FFN, "wiring": LINES}


def spec(streams: Any = TWO, *blocks: Any, **more: Any) -> archspec.Spec:
    return archspec.load({**TOP, "streams": streams, "blocks": list(blocks or [BLOCK]), **more})


def test_two_streams_are_revnets_residual_paths() -> None:
    """Gomez et al. 2017 (arXiv:1707.04585), equation 6: y1 = x1 + F(x2), y2 = x2 + G(y1); and back again."""
    model = archspec.build(spec(), seed=0).double()
    tokens = torch.randint(0, 11, (2, 6))
    first = second = model.embedding(tokens)
    for block in model.blocks:
        y1 = first + block.mixer(block.norm1(second))
        y2 = second + block.ffn(block.norm2(y1))
        back2 = y2 - block.ffn(block.norm2(y1))
        torch.testing.assert_close(back2, second, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(y1 - block.mixer(block.norm1(back2)), first, rtol=1e-12, atol=1e-12)
        first, second = block(first, second)
        assert torch.equal(first, y1)
        assert torch.equal(second, y2)
    expected = model.head(model.norm(0.5 * (first + second)))
    torch.testing.assert_close(model(tokens), expected, rtol=1e-12, atol=1e-12)


def test_what_is_shown_loads_again_and_is_another_spec() -> None:
    found = spec()
    assert archspec.loads(archspec.show(found)) == found
    other = spec({**TWO, "end": ["x = a - b"]})
    assert other != found
    assert other.digest != found.digest


def test_a_stream_that_a_layer_leaves_goes_on() -> None:
    aside = {"ffn": FFN, "wiring": ["b = b + ffn(norm1(b))"]}
    model = archspec.build(spec(TWO, aside), seed=0)
    x = model.embedding(torch.tensor([[1, 2]]))
    a, b = model.blocks[0](x, x)
    assert torch.equal(a, x)
    assert not torch.equal(b, x)


def test_files_say_what_goes_from_layer_to_layer() -> None:
    text = archspec.generate(spec())
    assert "a, b = block(a, b=b, state=substate(state, i))" in text
    assert '"""a, b (B, T, D_MODEL) -> (B, T, D_MODEL)."""' in text


WRONG: list[tuple[Any, tuple[Any, ...], str]] = [
    (3, (), "streams: must be how they start and end, {start: [a = x, b = x], end: [x = a + b]}, not a number"),
    ({"start": ["a = x"]}, (), "streams: streams need end: lines over the streams"),
    ({**TWO, "stop": 1}, (), "streams.stop: streams has no 'stop'"),
    ({**TWO, "start": ["a = x", "b = y"]}, (), "streams.start: line 2 reads 'y', which is not there; known: x, a"),
    ({**TWO, "start": ["a = x", "b = norm1(x)"]}, (), "streams.start: line 2 calls 'norm1'; streams start and end"),
    ({**TWO, "start": ["a = x", "b = 2"]}, (), "streams.start: line 2 gives 'b' a number; a line needs a tensor"),
    ({**TWO, "end": ["a = a + b"]}, (), "streams.end: the last line assigns 'a', and must assign x"),
    ({**TWO, "end": ["x = layer * a + b"]}, (), "streams.end: line 1 names layer, and stands outside the layers"),
    ({"start": ["mask = x", "b = x"], "end": ["x = mask + b"]}, (), "streams.start: line 1: 'mask' cannot be assigned"),
    ({"start": ["keep = x", "b = x", "device = x"], "end": ["x = b"]}, (), "streams.start: 'device' is a word"),
    (TWO, ({"mixer": A, "ffn": FFN},), "blocks[0]: the stack has streams, of which the wiring pre knows nothing"),
    (TWO, ({**BLOCK, "wiring": ["x = a + mixer(b)", "x = x + ffn(x)"]},),
     "blocks[0].wiring: the last line assigns 'x', but the output of a block is a or b; write a or b = ... there"),
    (TWO, ({**BLOCK, "wiring": ["a = x + mixer(b)", "b = ffn(a)"]},), "line 1 reads 'x', which no earlier line"),
    ({"start": ["mixer = x", "b = x"], "end": ["x = mixer + b"]},
     ({**BLOCK, "wiring": ["b = b + mixer(mixer) + ffn(b)"]},),
     "'mixer' comes into the block under the name of a module; choose another name"),
    ({**TWO, "start": ["a = x", "b = x", "d = x"]}, (), "streams.start: neither a layer nor the end reads 'd'"),
]  # fmt: skip


@pytest.mark.parametrize(("streams", "blocks", "message"), WRONG, ids=[str(i) for i in range(len(WRONG))])
def test_mistakes_are_told(streams: Any, blocks: tuple[Any, ...], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec(streams, *blocks)
    assert message in str(caught.value)
