"""Patch embedding, as a module. What it computes is said in `archspec.layers.embeddings.patch`."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kernels.inputs import require_tensor
from archspec.layers.embeddings.patch import PatchEmbedding as Config
from archspec.modules import submodule


class PatchEmbedding(nn.Module):
    """Square patches of an image as tokens."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        if c.class_token != "none":
            self.class_token = nn.Parameter(torch.empty(1, 1, c.d_model))
        self.project = nn.Conv2d(c.channels, c.d_model, c.patch_size, stride=c.patch_size, bias=c.bias)
        if c.position is not None:
            self.position = submodule(c.position)
        if c.norm is not None:
            self.norm = submodule(c.norm, c.d_model)
        if c.class_token != "none":
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start the class token small."""
        if self.c.class_token != "none":
            nn.init.trunc_normal_(self.class_token, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        """images (B, channels, image_size, image_size) -> (B, T, d_model), T patches and the class token."""
        c = self.c
        if not c.plain:
            require_tensor("images", images, f"(B, {c.channels}, height, width)")
        if c.other_sizes:
            # Any height and width of whole patches will do.
            check_patches(images, c.channels, c.patch_size)
        else:
            check_size(images, c.channels, c.image_size)
        x = self.project(images).flatten(2).transpose(1, 2)  # (B, n_patches, d_model)
        if c.class_token == "first":
            x = torch.cat((self.class_token.expand(x.shape[0], -1, -1), x), dim=1)  # (B, 1 + n_patches, d_model)
        elif c.class_token == "middle":
            before, after = x.tensor_split([x.shape[1] // 2], dim=1)
            token = self.class_token.expand(x.shape[0], -1, -1)
            x = torch.cat((before, token, after), dim=1)  # (B, n_patches + 1, d_model)
        if c.position is not None and c.other_sizes:
            x = x + self.positions(x, images.shape[2] // c.patch_size, images.shape[3] // c.patch_size)
        elif c.position is not None:
            x = x + self.position(x)
        if c.norm is not None:
            x = self.norm(x)
        if c.dropout:
            x = F.dropout(x, c.dropout, self.training)
        return x

    def positions(self, x: Tensor, height: int, width: int) -> Tensor:
        """The rows (T, d_model) of a grid of height x width patches, between those of the grid of image_size."""
        c = self.c
        rows = self.position(x.new_empty(1, c.n_tokens, c.d_model))  # (n_tokens, d_model)
        if height == width == c.image_size // c.patch_size:
            return rows
        grid = rows[c.n_tokens - c.n_patches :].view(1, c.image_size // c.patch_size, c.image_size // c.patch_size, -1)
        grid = F.interpolate(grid.permute(0, 3, 1, 2), (height, width), mode="bicubic", align_corners=False)
        return torch.cat((rows[: c.n_tokens - c.n_patches], grid.flatten(2).transpose(1, 2)[0]))


def check_patches(images: Tensor, channels: int, patch_size: int) -> None:
    """Raise ValueError for images that are not whole patches of that many channels."""
    if images.dim() != 4 or images.shape[1] != channels or images.shape[2] % patch_size or images.shape[3] % patch_size:
        right = f"(B, {channels}, height, width), both multiples of {patch_size}"
        raise ValueError(f"images are {tuple(images.shape)}; they must be {right}")


def check_size(images: Tensor, channels: int, size: int) -> None:
    """Raise ValueError for images of another shape than the patches were laid out for."""
    if images.dim() != 4 or tuple(images.shape[1:]) != (channels, size, size):
        raise ValueError(f"images are {tuple(images.shape)}; they must be (B, {channels}, {size}, {size})")
