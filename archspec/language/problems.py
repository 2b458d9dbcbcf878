"""Telling mistakes: all of them, each at its place, and for a word that nobody knows the one that was meant."""

from collections.abc import Collection

from archspec.errors import Mark, Problem, SpecError, closest, listed
from archspec.language.tree import Node, clipped

MOST_PROBLEMS = 100

# words of other configurations, and what they are called here
SYNONYMS = {
    "type": "kind",
    **dict.fromkeys(("hidden_size", "n_embd", "dim", "embed_dim", "width"), "d_model"),
    **dict.fromkeys(("num_heads", "num_attention_heads", "heads"), "n_heads"),
    **dict.fromkeys(("num_kv_heads", "num_key_value_heads", "kv_heads"), "n_kv_heads"),
    **dict.fromkeys(("intermediate_size", "hidden_dim", "ffn_dim", "n_inner"), "d_ff"),
    **dict.fromkeys(("max_position_embeddings", "context_length", "block_size", "n_ctx"), "max_seq_len"),
    **dict.fromkeys(("layers", "n_layers", "num_layers", "n_layer"), "blocks"),
    **dict.fromkeys(("attn", "attention", "self_attn", "token_mixer"), "mixer"),
    **dict.fromkeys(("mlp", "feed_forward", "channel_mixer"), "ffn"),
    **dict.fromkeys(("num_experts", "n_routed_experts"), "n_experts"),
    **dict.fromkeys(("num_experts_per_tok", "k"), "top_k"),
    **dict.fromkeys(("epsilon", "rms_norm_eps", "layer_norm_eps"), "eps"),
    **dict.fromkeys(("base", "rope_theta"), "theta"),
    **dict.fromkeys(("glu", "swiglu", "geglu", "reglu"), "gated_mlp"),
    **dict.fromkeys(("mha", "gqa", "mqa", "self_attention"), "attention"),
    "rotary": "rope",
    **dict.fromkeys(("tie_word_embeddings", "tie"), "tied"),
}


class Problems(list[Problem]):
    """The mistakes found so far; a file with very many of them is given up, so that telling them takes no long time."""

    def __init__(self, file: str):
        super().__init__()
        self.file = file
        self.warnings: dict[Problem, None] = {}

    def tell(self, at: Node | Mark, path: str, message: str) -> None:
        """Keep one more."""
        if len(self) >= MOST_PROBLEMS:
            message = f"more than {MOST_PROBLEMS} problems; these were found first"
            raise SpecError([*self, Problem(Mark(self.file), "", message)], self.file)
        self.append(Problem(at.mark if isinstance(at, Node) else at, path, message))

    def warn(self, at: Node | Mark, path: str, message: str) -> None:
        """Keep a warning, once; of very many the first."""
        if len(self.warnings) < MOST_PROBLEMS:
            self.warnings[Problem(at.mark if isinstance(at, Node) else at, path, message)] = None

    def mapping(self, node: Node | None, path: str, what: str) -> dict[str, Node]:
        """What a mapping of `what` holds; nothing, which is told, where it is none."""
        if node is not None and not isinstance(node.value, dict):
            self.tell(node, path, f"must map {what}, not {node.kind_name()}")
        return {} if node is None else node.fields

    def unknown(self, node: Node, known: Collection[str], path: str, what: str, told: Collection[str] = ()) -> set[str]:
        """Tells each key of a mapping that nobody knows; returns the known keys that were probably meant.

        Keys in `told` are passed over: something more exact is said of them elsewhere.
        """
        meant = set()
        for key in node.fields:
            if key not in known and key not in told:
                right = near(key, known)
                meant |= {right} - {""}
                advice = f"; did you mean {right!r}?" if right else listed(known)
                self.tell(node.key_mark(key), join(path, clipped(key)), f"{what} has no {clipped(key)!r}{advice}")
        return meant


def join(path: str, key: str) -> str:
    """The path of what stands under a key."""
    return f"{path}.{key}" if path and key else path or key


def near(word: str, known: Collection[str]) -> str:
    """The known word that was probably meant, or nothing."""
    return SYNONYMS[word] if SYNONYMS.get(word) in known else closest(word, known)
