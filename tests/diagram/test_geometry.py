"""The figure: nothing overlaps or is cut off for any spec or dataflow, lines are right-angled, Graphviz draws it."""

import shutil
import subprocess
from itertools import pairwise
from random import Random

import pytest
from diagram_faults import faults
from diagram_specs import ALL, KINDS, example, named

from archspec.diagram.dot import rounded, to_dot
from archspec.diagram.figure import draw
from archspec.diagram.flow import SINK, SOURCE, Flow, bare, box, circle
from archspec.diagram.place import Placed
from archspec.diagram.scene import Scene, Shape


@pytest.mark.parametrize("name", ALL)
def test_nothing_overlaps_or_is_cut_off(name: str) -> None:
    assert not faults(draw(named(name)))


@pytest.mark.parametrize(("role", "kind", "number"), KINDS)
def test_nothing_overlaps_in_any_component(role: str, kind: str, number: int) -> None:
    assert not faults(draw(example(role, kind, number)))


def tangle(seed: int) -> Flow:
    """A random dataflow of boxes, circles and projections that give several tensors."""
    rng, flow = Random(seed), Flow()
    names = [flow.add(bare(SOURCE, "x")).name]
    for i in range(rng.randint(3, 14)):
        inputs = rng.sample(names, min(len(names), rng.choice((1, 1, 1, 2, 2, 3))))
        sign = len(inputs) == 2 and rng.random() < 0.5
        node = circle(f"n{i}", "+") if sign else box(f"n{i}", "op " * rng.randint(1, 6), ["sub"] * rng.randint(0, 2))
        node.split = rng.random() < 0.2
        node.late = rng.random() < 0.2
        names.append(flow.add(node, inputs).name)
    ends = [n for n in names if not flow.out_of(n)]
    flow.add(bare(SINK, "y"), [flow.add(box("last", "last"), ends).name])
    return flow


@pytest.mark.parametrize("seed", range(150))
def test_any_dataflow_is_drawn_without_overlaps(seed: int) -> None:
    found, placed = Scene(), Placed(tangle(seed))
    shapes = placed.paint(found, 0, 0, placed.width, placed.height + 50)
    found.add(Shape(placed.width / 2, placed.height / 2 + 25, placed.width, placed.height + 50, role="frame"))
    assert len(shapes) == len(placed.flow.nodes)
    assert not faults(found)


@pytest.mark.parametrize("name", ALL)
def test_every_line_is_right_angled(name: str) -> None:
    for way in draw(named(name)).paths:
        for (x0, y0), (x1, y1) in pairwise(way.points):
            assert way.under or abs(x0 - x1) < 0.01 or abs(y0 - y1) < 0.01


@pytest.mark.parametrize("name", ALL)
def test_graphviz_draws_it_without_a_word(name: str) -> None:
    if shutil.which("neato") is None:
        pytest.skip("Graphviz is not installed: no neato on the PATH")
    text = to_dot(draw(named(name)), name)
    done = subprocess.run(["neato", "-n2", "-Tsvg"], input=text.encode(), capture_output=True)
    assert (done.returncode, done.stderr.decode()) == (0, "")
    assert done.stdout.rstrip().endswith(b"</svg>")


def test_corners_are_round_and_ends_are_kept() -> None:
    curve = rounded([(0, 0), (0, 10), (10, 10)])
    assert (curve[0], curve[-1]) == ((0, 0), (10, 10))
    assert len(curve) % 3 == 1
