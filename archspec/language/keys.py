"""Keys and names: those that nobody knows are told with the word that was probably meant, and some are not free."""

import keyword
import re
from collections.abc import Collection

from archspec.errors import Mark, Problem, SpecError, closest, listed
from archspec.language.source import Node

MOST_PROBLEMS = 100
LONGEST_NAME = 60

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
# what generated code calls its own: attributes of a PyTorch module, names that its methods use, and what it looks up
_WORDS = """
T_destination aux_loss c correction_bias reset_parameters update_bias
add_module apply bfloat16 bias blocks buffers call_super_init children compile cpu cuda device double
dropout dtype dump_patches embedding eval extra_repr final_norm float forward get_buffer get_extra_state
get_parameter get_submodule half head init ipu layers load_state_dict losses mask math memory model modules
mtia named_buffers named_children named_modules named_parameters nn parameters position_bias prefix_len
register_backward_hook register_buffer register_forward_hook register_forward_pre_hook
register_full_backward_hook register_full_backward_pre_hook register_load_state_dict_post_hook
register_load_state_dict_pre_hook register_module register_parameter register_state_dict_post_hook
register_state_dict_pre_hook requires_grad_ self set_extra_state set_submodule share_memory state state_dict
to to_empty torch train training type x xpu zero_grad
"""
TAKEN = frozenset(_WORDS.split())


class Problems(list[Problem]):
    """The mistakes found so far; a file with very many of them is given up, so that telling them takes no long time."""

    def __init__(self, file: str):
        super().__init__()
        self.file = file

    def append(self, problem: Problem) -> None:
        """Keep one more."""
        if len(self) >= MOST_PROBLEMS:
            message = f"more than {MOST_PROBLEMS} problems; these were found first"
            raise SpecError([*self, Problem(Mark(self.file), "", message)], self.file)
        super().append(problem)


def unknown(
    node: Node, known: Collection[str], path: str, what: str, problems: list[Problem], told: Collection[str] = ()
) -> set[str]:
    """Tells each key of a mapping that nobody knows; returns the known keys that were probably meant.

    Keys in `told` are passed over: something more exact is said of them elsewhere.
    """
    assert isinstance(node.value, dict)
    meant = set()
    for key in node.value:
        if key not in known and key not in told:
            right = near(key, known)
            meant |= {right} - {""}
            advice = f"; did you mean {right!r}?" if right else listed(known)
            where = f"{path}.{clipped(key)}" if path else clipped(key)
            problems.append(Problem(node.keys.get(key, node.mark), where, f"{what} has no {clipped(key)!r}{advice}"))
    return meant


def near(word: str, known: Collection[str]) -> str:
    """The known word that was probably meant, or nothing."""
    return SYNONYMS[word] if SYNONYMS.get(word) in known else closest(word, known)


def clipped(text: str) -> str:
    """A text, cut where it is long."""
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 3]}..."


def bad_name(name: str) -> str:
    """What is wrong with a name that generated code will use as its own; nothing when it is right."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or len(name) > LONGEST_NAME:
        return f"cannot be a name: it is letters, digits and _, starts with a letter and has at most {LONGEST_NAME}"
    if name == "c":
        return "is one letter that formulas use; choose a longer word"
    if keyword.iskeyword(name) or name in TAKEN:
        return "is a word that the generated code needs; choose another"
    return ""


def bad_block_name(name: str) -> str:
    """What is wrong with the name of a block, which patterns use; nothing when it is right."""
    if re.fullmatch(r"x\d+", name):
        return "cannot be the name of a block: in a pattern it would be a repeat; choose another"
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or len(name) > LONGEST_NAME:
        return f"cannot be the name of a block: it is letters, digits and _, at most {LONGEST_NAME}"
    return ""


def bad_size_name(name: str, taken: Collection[str]) -> str:
    """What is wrong with the name of a size, which arithmetic uses; nothing when it is right."""
    if name in taken:
        return "is a size or function that every spec has; choose another word"
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or keyword.iskeyword(name) or len(name) > LONGEST_NAME:
        return f"cannot be the name of a size: it is letters, digits and _, at most {LONGEST_NAME}; choose another word"
    return ""
