"""The vision transformer of the transformers library."""

import torch
from parity_checks import Family, Take, assert_same

VIT = Family(
    "vit_base",
    (
        "d_model=32",
        "embedding.image_size=12",
        "embedding.patch_size=4",
        "embedding.position.n_positions=10",
        "blocks[0].repeat=2",
        "blocks[0].mixer.n_heads=4",
        "head.n_classes=7",
    ),
    "vit",
    "ViTForImageClassification",
    {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "image_size": 12,
        "patch_size": 4,
        "num_labels": 7,
    },
    {
        "embedding.class_token": "vit.embeddings.cls_token",
        "embedding.project.*": "vit.embeddings.patch_embeddings.projection.*",
        "embedding.position.table.weight": Take("vit.embeddings.position_embeddings", lambda t: t[0]),
        "blocks.*.norm1.*": "vit.layers.*.layernorm_before.*",
        "blocks.*.norm2.*": "vit.layers.*.layernorm_after.*",
        "blocks.*.mixer.*": "vit.layers.*.attention.*",
        "blocks.*.ffn.up_proj.*": "vit.layers.*.mlp.fc1.*",
        "blocks.*.ffn.down_proj.*": "vit.layers.*.mlp.fc2.*",
        "norm.*": "vit.layernorm.*",
        "head.proj.*": "classifier.*",
    },
)


@torch.no_grad()
def test_scores_of_images() -> None:
    ours, theirs = VIT.pair()
    images = torch.randn(3, 3, 12, 12, dtype=torch.float64)
    assert_same(ours(images), theirs(pixel_values=images).logits)


@torch.no_grad()
def test_images_of_another_size() -> None:
    ours, theirs = VIT._replace(settings=(*VIT.settings, "embedding.other_sizes=true")).pair()
    for shape in ((20, 8), (12, 12), (24, 24)):
        images = torch.randn(4, 3, *shape, dtype=torch.float64)
        assert_same(ours(images), theirs(pixel_values=images, interpolate_pos_encoding=True).logits)
