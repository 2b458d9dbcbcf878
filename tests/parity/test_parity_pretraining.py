"""BERT as it is pretrained: both heads, their losses and the gradient of the sum, against the transformers library."""

import pytest
import torch
from parity_checks import TOKENS, Family, assert_same, padded, tokens
from test_parity_encoders import BERT, FAMILIES

RULES = {
    **{name.replace("head.", "mlm_head."): theirs for name, theirs in BERT.items()},
    "nsp_head.pooler.*": "bert.pooler.dense.*",
    "nsp_head.proj.*": "cls.seq_relationship.*",
}
ALONE = FAMILIES["bert"]
FAMILY = Family("bert_pretraining", ALONE.settings, "bert", "BertForPreTraining", ALONE.sizes, RULES)


@pytest.mark.parametrize("padding", [False, True])
def test_both_heads_their_losses_and_gradients(padding: bool) -> None:
    ours, theirs = FAMILY.pair()
    inputs, segments = tokens(), (torch.arange(TOKENS) >= 7).long().expand(2, -1)
    mask = padded(TOKENS, 9)
    hidden = torch.rand(inputs.shape, generator=torch.Generator().manual_seed(2)) < 0.3
    labels = inputs.masked_fill(~(hidden & mask), -100)
    follows = torch.tensor([0, 1])
    given = {"mask": mask} if padding else {}
    expected = theirs(
        input_ids=inputs,
        token_type_ids=segments,
        attention_mask=mask.long() if padding else None,
        labels=labels,
        next_sentence_label=follows,
    )
    answers = ours(inputs, token_types=segments, **given)
    real = mask if padding else torch.ones_like(mask)
    assert_same(answers["mlm"][real], expected.prediction_logits[real])
    assert_same(answers["nsp"], expected.seq_relationship_logits)
    losses = ours.loss(answers, {"mlm": labels, "nsp": follows})
    torch.testing.assert_close(losses["total"], expected.loss)
    losses["total"].backward()
    expected.loss.backward()
    torch.testing.assert_close(ours.embedding.token.weight.grad, theirs.bert.embeddings.word_embeddings.weight.grad)
    torch.testing.assert_close(ours.nsp_head.pooler.weight.grad, theirs.bert.pooler.dense.weight.grad)
