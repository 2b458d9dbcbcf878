"""What the router of a mixture of experts declares: who chooses whom, what a choice weighs, how load is kept even.

    s = score(router(x) / temperature);  chosen: the top_k largest of s (+ correction bias);  w = s of the chosen

A token chooses its experts, or each expert its tokens (`assignment: expert`: of each sequence, or of the whole batch as
in Zhou et al.), which compares a token with later ones and is not causal. Capacity is counted for each sequence alone,
and places go to tokens in order of position (at one position to its better choices first), so that a token never takes
a place from an earlier one and the layer stays causal. A capacity in evaluation is a fixed number of tokens, since the
length of a sequence is not known while it is decoded. Padding is nobody's: it is not counted and takes no place.

The balance loss is balance_loss * n_experts * sum_i f_i P_i, f_i the fraction of tokens that chose expert i and P_i its
mean score. Of its parts, sources take (over; counted; f sums to; layers):

    Switch (Fedus et al. 2021)         batch; chosen; 1, as top_k is 1; summed
    GShard (Lepikhin et al. 2020)      batch; first; 1; summed
    transformers (Mixtral, Qwen, Jamba) batch; chosen; top_k; pooled
    DeepSeek-V2                        sequence; chosen; 1; summed
    DeepSeek-V3                        sequence; raw; 1; summed
"""

from collections.abc import Iterator
from typing import Literal

from archspec.layers.base import FFNComponent
from archspec.layers.fields import NotNegative, Positive, Probability, Size, Tokens, Width, field, inherited


class Routed(FFNComponent):
    """A feed-forward network whose tokens are routed among experts."""

    d_model: Width = inherited("width of the residual stream")
    n_experts: Size = field("routed experts")
    top_k: Size = field("experts that a token runs")
    assignment: Literal["token", "expert"] = field(
        "who chooses: a token its top_k experts, or an expert its top_k * T / n_experts tokens (top_k is then a mean)",
        "token",
    )
    choice_over: Literal["sequence", "batch"] = field(
        "whether an expert chooses among the tokens of each sequence, or of the whole batch",
        "sequence",
        when=("assignment", "expert"),
    )
    choice_by: Literal["score", "logit"] = field(
        "what an expert compares tokens by: their scores, or the logits before these compare experts",
        "score",
        when=("assignment", "expert"),
    )
    router_bias: bool = field("bias of the router", False)
    router_dtype: Literal["float32", "model"] = field(
        "type of the router's product: float32 whatever the model is cast to, or that of the model", "float32"
    )
    score: Literal["softmax", "sigmoid"] = field("how the router's logits become scores", "softmax")
    temperature: Positive = field("what the router's logits are divided by", 1.0)
    jitter: Probability = field(
        "in training the router's input is multiplied by noise between 1 - jitter and 1 + jitter", 0.0
    )
    order: Literal["score_then_top_k", "top_k_then_score"] = field(
        "whether all experts are scored, or only the chosen ones", "score_then_top_k", when=("assignment", "token")
    )
    renormalise: bool = field(
        "whether the weights of a token's experts are made to sum to 1", False, when=("order", "score_then_top_k")
    )
    routed_scale: Positive = field("factor of the routed experts' weights", 1.0)
    n_groups: Size | None = field(
        "groups of neighbouring experts, of which a token may use only some", None, when=("assignment", "token")
    )
    top_k_groups: Size | None = field("groups that a token may use", None, when=("n_groups",))
    group_score: Literal["max", "top2_sum"] | None = field(
        "what a group is worth: its best score, or its best two together", None, when=("n_groups",)
    )
    correction_bias: bool = field(
        "a number an expert, added to its score for the choice only, moved against its load by `update_bias`",
        False,
        when=("order", "score_then_top_k"),
    )
    bias_update_rate: Positive = field("how far one update moves the correction bias", 0.001, when=("correction_bias",))
    balance_loss: NotNegative = field(
        "coefficient of n_experts * sum of (fraction of tokens) * (mean score), the loss of uneven load",
        0.0,
        when=("assignment", "token"),
    )
    balance_over: Literal["batch", "sequence"] = field(
        "what fractions and mean scores are taken over: the batch, or each sequence, whose losses are averaged",
        "batch",
        when=("balance_loss",),
    )
    balance_counts: Literal["chosen", "first", "raw"] = field(
        "which choices are counted: all, a token's first, or the top_k of its scores without groups and bias",
        "chosen",
        when=("balance_loss",),
    )
    balance_sum: Literal["top_k", "one"] = field(
        "what the fractions of all experts sum to", "top_k", when=("balance_loss",)
    )
    balance_pooled: bool = field(
        "whether fractions and mean scores are averaged over the layers of a stack, and not the losses summed",
        False,
        when=("balance_loss",),
    )
    z_loss: NotNegative = field("coefficient of the mean square of logsumexp(logits)", 0.0)
    capacity_factor: Positive | None = field(
        "in training an expert takes capacity_factor * top_k * T / n_experts tokens of a sequence, and drops the rest",
        None,
        when=("assignment", "token"),
    )
    eval_capacity: Tokens | None = field(
        "tokens of a sequence that an expert takes in evaluation; none: all",
        None,
        when=("assignment", "token"),
    )

    def check(self) -> None:
        """Refuse choices that cannot be made and settings that could not matter."""
        if self.top_k > self.n_experts:
            raise ValueError(f"top_k = {self.top_k} must be at most n_experts = {self.n_experts}")
        if self.n_experts == 1:
            raise ValueError("n_experts = 1 leaves nothing to choose; use gated_mlp or mlp, or more experts")
        if self.assignment == "expert" and (self.renormalise or self.correction_bias):
            name = "renormalise" if self.renormalise else "correction_bias"
            raise ValueError(f"{name} has no effect when assignment is expert; remove it, or set assignment to 'token'")
        self._check_groups()

    def _check_groups(self) -> None:
        """Refuse groups that experts or choices do not fit."""
        if self.n_groups is None:
            return
        if self.n_experts % self.n_groups:
            raise ValueError(f"n_experts = {self.n_experts} must be a multiple of n_groups = {self.n_groups}")
        if self.n_groups > 1 and None in (self.top_k_groups, self.group_score):
            missing = "top_k_groups" if self.top_k_groups is None else "group_score"
            raise ValueError(f"n_groups = {self.n_groups} needs {missing}")
        groups, size = self.top_k_groups or 1, self.n_experts // self.n_groups
        if groups > self.n_groups:
            raise ValueError(f"top_k_groups = {groups} must be at most n_groups = {self.n_groups}")
        if self.top_k > groups * size:
            most = groups * size
            raise ValueError(f"top_k = {self.top_k} must be at most {most}, the experts of top_k_groups groups")
        if self.group_score == "top2_sum" and size < 2:
            raise ValueError("group_score = 'top2_sum' needs groups of at least two experts; use max")

    def doubts(self, length: int | None) -> Iterator[str]:
        """Choices that are no choice at these numbers of experts, and a router that could learn nothing."""
        yield from self._doubts_of_one()
        if self.order == "top_k_then_score" and self.score == "sigmoid":
            yield "score = 'sigmoid' is the same in either order; remove order"
        if self.choice_by == "logit" and self.score == "sigmoid":
            yield "choice_by = 'logit' is the same as by the sigmoid of the logit; remove it"
        yield from self._doubts_of_all()
        yield from self._doubts_of_balance()
        if self.capacity_factor is not None and self.capacity_factor * self.top_k >= self.n_experts:
            yield (
                f"capacity_factor = {self.capacity_factor:g} drops nothing: an expert has room for the whole sequence"
                f" from n_experts / top_k = {self.n_experts / self.top_k:g} on"
            )
        if self.eval_capacity is not None and length is not None and self.eval_capacity >= length:
            yield f"eval_capacity = {self.eval_capacity} drops nothing in texts of up to max_seq_len = {length} tokens"
        yield from self._doubts_of_groups()

    def _doubts_of_one(self) -> Iterator[str]:
        """A single chosen expert whose weight is always 1."""
        if self.top_k > 1 or self.assignment == "expert":
            return
        if self.renormalise:
            yield (
                "renormalise makes the weight of the only chosen expert 1, so the router learns nothing from the loss;"
                " set it to false, or raise top_k"
            )
        if self.order == "top_k_then_score" and self.score == "softmax":
            yield (
                "order = 'top_k_then_score' makes the weight of the only chosen expert 1, so the router learns nothing"
                " from the loss; remove it, or raise top_k"
            )

    def _doubts_of_all(self) -> Iterator[str]:
        """Nothing to choose or to balance where every token runs every expert."""
        if self.top_k < self.n_experts:
            return
        idle = {
            "correction_bias": self.correction_bias,
            "balance_loss": self.balance_loss,
            "renormalise": self.renormalise and self.score == "softmax",
            "assignment": self.assignment == "expert",
            "order": self.order == "top_k_then_score" and self.score == "softmax",
        }
        for name in [name for name, given in idle.items() if given]:
            yield f"{name} has no effect when top_k = n_experts = {self.n_experts}: every token runs every expert"

    def _doubts_of_balance(self) -> Iterator[str]:
        """Parts of the balance loss that say the same as others."""
        if self.top_k == 1 and self.balance_counts == "first":
            yield "balance_counts = 'first' counts all choices when top_k = 1; remove it"
        if self.balance_sum == "one" and (self.top_k == 1 or self.balance_counts == "first"):
            reason = "top_k = 1" if self.top_k == 1 else "balance_counts is 'first'"
            yield f"balance_sum has no effect when {reason}: fractions sum to one; remove it"
        if self.balance_counts == "raw" and not (self.correction_bias or self.n_groups):
            yield "balance_counts = 'raw' counts the choices themselves without groups and correction bias; remove it"

    def _doubts_of_groups(self) -> Iterator[str]:
        """Groups that exclude nobody."""
        if self.n_groups is None:
            return
        groups = self.top_k_groups or 1
        if groups == self.n_groups:
            yield f"n_groups = {self.n_groups} has no effect: a token may use every group (top_k_groups = {groups})"
        elif self.group_score == "max" and self.top_k <= groups:
            yield (
                f"n_groups has no effect: the groups of the best top_k = {self.top_k} experts are always among the best"
                f" top_k_groups = {groups}"
            )

    @property
    def arguments(self) -> tuple[str, ...]:
        """The decoding state, where places are counted; which tokens are real; what is collected, where anything is."""
        return (*([] if self.eval_capacity is None else ["state"]), "mask", *(["aux"] if self.collects else []))

    @property
    def collects(self) -> bool:
        """Whether there is a load to count, or a loss."""
        return self.assignment == "token" or bool(self.z_loss)

    @property
    def has_capacity(self) -> bool:
        """Whether an expert may have no place left."""
        return self.capacity_factor is not None or self.eval_capacity is not None

    @property
    def causal(self) -> bool:
        """Whether tokens choose; an expert that chooses compares them with later ones."""
        return self.assignment == "token"

    @property
    def mixes(self) -> bool:
        """Whether places, or the balance, are those of each sequence."""
        of_each = self.assignment == "expert" and self.choice_over == "sequence"
        return of_each or self.has_capacity or (bool(self.balance_loss) and self.balance_over == "sequence")

    @property
    def crosses(self) -> bool:
        """Whether an expert chooses among the tokens of the whole batch."""
        return self.assignment == "expert" and self.choice_over == "batch"

    @property
    def reach(self) -> int:
        """Tokens of which some expert must drop one: more choices than there are places."""
        return 1 if self.eval_capacity is None else self.eval_capacity * self.n_experts // self.top_k + 1

    @property
    def aux_loss(self) -> bool:
        """Whether the router has a loss."""
        return bool(self.balance_loss or self.z_loss)

    @property
    def loss_pools(self) -> tuple[tuple[int, str] | None, ...]:
        """The balance loss, which may be made of averages over layers (of one shape), and the z-loss."""
        pool = (self.n_experts, self.balance_over) if self.balance_pooled else None
        return (*([pool] if self.balance_loss else []), *([None] if self.z_loss else []))

    @property
    def moves_bias(self) -> bool:
        """Whether the router is balanced by a bias."""
        return self.correction_bias

    @property
    def choice(self) -> str:
        """Who chooses how many, in words."""
        if self.assignment == "expert":
            return f"expert choice, {self.top_k} of {self.n_experts} on average"
        return f"top-{self.top_k} of {self.n_experts}"

    @property
    def rules(self) -> tuple[str, ...]:
        """What the choice heeds beside scores, in words."""
        rules = ["renormalised"] if self.renormalise else []
        rules += ["among the tokens of the batch"] if self.choice_over == "batch" else []
        rules += ["by logits"] if self.choice_by == "logit" else []
        rules += [f"within {self.top_k_groups} of {self.n_groups} groups"] if self.n_groups else []
        rules += ["balanced by a bias"] if self.correction_bias else []
        rules += [f"capacity factor {self.capacity_factor:g}"] if self.capacity_factor else []
        rules += [f"at most {self.eval_capacity} in evaluation"] if self.eval_capacity else []
        return tuple(rules)
