"""Latent attention against keys and values that are made, and the operator that a GPU runs."""

import pytest
import torch
from kernel_checks import Face, assert_close, check, compiles, faces, is_an_operator
from torch.utils.flop_counter import FlopCounterMode

from archspec.kernels.attention import blocks as attention_blocks
from archspec.kernels.attention import latent as family
from archspec.kernels.attention.latent import attend_latents, example, latent_attention, reference

# a single key leaves gradients of zero, of which rounding is all
LENGTHS = [sizes for sizes in family.EXAMPLES if sizes.get("S", 0) > 1]


@pytest.mark.parametrize("sizes", LENGTHS, ids=str)
@pytest.mark.parametrize("fused", [False, True])
def test_is_attention_over_the_keys_and_values_of_each_head(sizes, fused, monkeypatch):
    monkeypatch.setattr(family, "PAIRS_FUSED", 0 if fused else 1 << 40)
    check(lambda *x: latent_attention(*x, scale=0.3), lambda *x: reference(*x, scale=0.3), [*example(**sizes).values()])


def test_the_usual_scale_is_that_of_the_width_of_a_key():
    given = example(T=3)
    assert_close("scale", latent_attention(**given), latent_attention(**given, scale=12**-0.5))
    assert_close("scale", latent_attention(**given), reference(**given))


def naive(q_latent, q_rope, latent, k_rope, scale):
    scores = (q_latent @ latent.mT + q_rope @ k_rope.mT) * scale
    T, S = scores.shape[2:]
    return scores.masked_fill(torch.ones(T, S).triu(S - T + 1).bool(), -torch.inf).softmax(-1) @ latent


def latents(T, S):
    given = example(T=T, S=S)
    q_latent = given["q_nope"] @ given["w_k"]
    return [q_latent, *(given[name] for name in ("q_rope", "latent", "k_rope"))]


@pytest.mark.parametrize(("T", "S"), [(1, 63), (5, 20), (20, 20)])
def test_the_operator_and_its_gradient(T, S, monkeypatch):
    monkeypatch.setattr(attention_blocks, "ROWS", 8)
    check(lambda *x: attend_latents(*x, 0.3), lambda *x: naive(*x, 0.3), latents(T, S))


@faces("triton")
def test_triton_is_the_definition(face: Face):
    check(lambda *x: attend_latents(*x, 0.3), lambda *x: naive(*x, 0.3), latents(1, 20), face)


def test_the_operator_is_an_operator():
    is_an_operator(attend_latents, *(x.float().requires_grad_() for x in latents(2, 9)), 0.3)


def test_flops_are_those_of_the_products():
    given = [x.to("meta").requires_grad_() for x in latents(2, 9)]
    counted = []
    for f in (lambda: attend_latents(*given, 0.3), lambda: naive_products(*given)):
        with FlopCounterMode(display=False) as counter:
            f()
        counted.append(counter.get_total_flops())
    assert counted[0] == counted[1]


def naive_products(q_latent, q_rope, latent, k_rope):
    return (q_latent @ latent.mT + q_rope @ k_rope.mT) @ latent


def test_no_key_or_value_of_a_head_is_made():
    given = {name: x.float() for name, x in example(B=1, H=8, S=256, N=32, V=32, L=64).items()}
    widest = 8 * 256 * 32  # numbers of the keys of all heads
    sizes = []

    class Seen(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, f, types, args=(), kwargs=None):
            y = f(*args, **(kwargs or {}))
            sizes.extend(x.numel() for x in (y if isinstance(y, tuple) else (y,)) if isinstance(x, torch.Tensor))
            return y

    with Seen():
        latent_attention(**given)
    assert max(sizes) < widest / 2


def test_dropout_keeps_the_mean():
    given = {name: x.float() for name, x in example(B=1, S=64).items()}
    many = {name: x.expand(4000, *x.shape[1:]) if x.dim() == 4 else x for name, x in given.items()}
    y = latent_attention(**many, dropout=0.5)
    assert y.std(0).max() > 0.01
    assert_close("mean", y.mean(0, keepdim=True), latent_attention(**given), 0.1)


def test_compiles():
    given = example(T=3, S=9)
    compiles(lambda *x: latent_attention(*x), *(x.float() for x in given.values()))


def test_exports_with_a_length_left_open():
    class Model(torch.nn.Module):
        def forward(self, q_nope, q_rope, latent, k_rope, w_k, w_v):
            return latent_attention(q_nope, q_rope, latent, k_rope, w_k, w_v)

    short, long = ({name: x.float() for name, x in example(T=T, S=T).items()} for T in (9, 100))
    length = torch.export.Dim("length", min=2, max=4096)
    shapes = {name: {2: length} if x.dim() == 4 else None for name, x in short.items()}
    program = torch.export.export(Model(), tuple(short.values()), dynamic_shapes=shapes)
    assert_close("exported", program.module()(*long.values()), latent_attention(**long), 1e-5)


@pytest.mark.parametrize("sizes", family.EXAMPLES, ids=str)
def test_the_example_arguments_fit(sizes):
    given = example(**sizes)
    assert latent_attention(**given).shape == (*given["q_nope"].shape[:3], given["w_v"].shape[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k_rope": (2, 3, 63, 4)}, "k_rope has shape (2, 3, 63, 4), expected (B 1 S R) with B = 2, S = 63, R = 4"),
        ({"w_v": (2, 6, 10)}, "w_v has shape (2, 6, 10), expected (H V L) with H = 3, L = 10"),
        (
            {"latent": (2, 1, 3, 10), "k_rope": (2, 1, 3, 4), "q_nope": (2, 3, 5, 8), "q_rope": (2, 3, 5, 4)},
            "5 queries and 3 latents, expected no fewer latents than queries",
        ),
    ],
    ids=["k_rope", "w_v", "T"],
)
def test_a_broken_contract_is_one_clear_error(change, message):
    given = example() | {name: torch.zeros(shape, dtype=torch.float64) for name, shape in change.items()}
    with pytest.raises(ValueError) as error:
        latent_attention(**given)
    assert str(error.value) == f"latent_attention: {message}"
