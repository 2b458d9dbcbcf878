"""Patch embedding: an image is cut into square patches, each a token; a class token may stand first or in the middle.

    y = norm(concat(class_token, project(patches)) + position)

The projection is a convolution whose stride is its size. Images of another size, where they are taken, have the rows of
their positions interpolated (bicubic) from the grid of image_size. No state. O(patch_size^2 channels d) a patch.

Sources: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words" (class token first); Zhu et al. 2024, "Vision Mamba"
(class token in the middle).
"""

from typing import Any, ClassVar, Literal

from archspec.layers.base import AbsolutePositionComponent, EmbeddingComponent, NormComponent
from archspec.layers.fields import Probability, Size, Width, field, inherited, slot
from archspec.layers.ops import ADD, CONCAT, Conv, Elementwise, Op, Param, Shape, elementwise


class PatchEmbedding(EmbeddingComponent):
    """Square patches of an image as tokens."""

    reads: ClassVar[str] = "images"
    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"image_size": 8, "patch_size": 4, "position": {"kind": "learned", "n_positions": 5}},
        {"image_size": 8, "patch_size": 4, "channels": 1, "class_token": "middle", "norm": {"kind": "layernorm"}},
        {"image_size": 8, "patch_size": 2, "class_token": "none", "bias": False, "position": {"kind": "sinusoidal"}},
        {"image_size": 8, "patch_size": 4, "position": {"kind": "learned", "n_positions": 5}, "other_sizes": True},
    )

    kind: Literal["patch"] = "patch"
    d_model: Width = inherited("width of the residual stream")
    image_size: Size = field("height and width of an image, in pixels")
    patch_size: Size = field("height and width of a patch, in pixels")
    channels: Size = field("channels of an image", 3)
    bias: bool = field("bias of the projection", True)
    class_token: Literal["none", "first", "middle"] = field(
        "where a learned token stands that a head can read", "first"
    )
    position: AbsolutePositionComponent | None = slot("absolute_position", "what is added for the position", None)
    other_sizes: bool = field(
        "whether images of other sizes are taken, with positions interpolated between those of image_size",
        False,
    )
    norm: NormComponent | None = slot("norm", "norm of the sum", None)
    dropout: Probability = field("dropout of the embedding", 0.0, inherit="dropout")

    def check(self) -> None:
        """Refuse patches that do not tile the image, and positions that do not fit it."""
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size = {self.image_size} must be a multiple of patch_size = {self.patch_size}")
        if self.position is None and self.other_sizes:
            raise ValueError(
                "other_sizes interpolates between positions, and there are none; give a position, or remove it"
            )
        if self.position is None:
            return
        if self.other_sizes and self.class_token == "middle":
            raise ValueError(
                "other_sizes needs the class token first, or none: where the middle is depends on the size"
            )
        if self.position.dim != self.d_model:
            raise ValueError(f"position.dim = {self.position.dim} must be {self.d_model}, d_model")
        if self.position.longest not in (None, self.n_tokens):
            rows = self.position.longest
            raise ValueError(f"position.n_positions = {rows} must be {self.n_tokens}, the tokens of an image")

    @property
    def n_patches(self) -> int:
        """Patches of an image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def n_tokens(self) -> int:
        """Tokens of an image, the class token included."""
        return self.n_patches + (self.class_token != "none")

    @property
    def tells_order(self) -> bool:
        """Whether there are positions."""
        return self.position is not None

    @property
    def title(self) -> str:
        """The name in full."""
        return "Patch embedding"

    @property
    def input_shape(self) -> Shape:
        """Images."""
        return ("B", self.channels, self.image_size, self.image_size)

    def ops(self) -> tuple[Op, ...]:
        """The class token, the convolution, and what is added."""
        d, p = self.d_model, self.patch_size
        found: list[Op] = []
        shape = ("B", self.n_tokens, d)
        if self.class_token != "none":
            found.append(self._class_token())
        weight = Param("project.weight", (d, self.channels, p, p))
        bias = (Param("project.bias", (d,)),) if self.bias else ()
        side = self.image_size // p
        grid = ("B", d, side, side)
        found += [
            Conv(name="project", shape=grid, params=(weight, *bias), channels=d, taps=p * p, d_in=self.channels),
            elementwise("flatten", ("B", self.n_patches, d), ("project",), "patches"),
        ]
        if self.class_token != "none":
            found.append(elementwise(CONCAT, shape, ("class_token", "patches")))
        terms = [found[-1].name]
        if self.position is not None:
            found += [op.under("position") for op in self.position.ops()]
            found.append(elementwise(ADD, shape, (*terms, found[-1].name), "sum"))
        if self.norm is not None:
            found.append(self.norm.op("norm", d, (found[-1].name,), shape))
        return tuple(found)

    def _class_token(self) -> Op:
        where = "class token first" if self.class_token == "first" else "class token in the middle"
        shape = (1, 1, self.d_model)
        token = Param("class_token", shape)
        return Elementwise(name="class_token", fn="class token", label=where, shape=shape, inputs=(), params=(token,))
