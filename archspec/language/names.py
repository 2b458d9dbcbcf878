"""Names that a spec makes up (of blocks, sizes, parts, stacks), and those that are not free."""

import builtins
import keyword
import re
from collections.abc import Collection

from archspec.language.tree import LONGEST_SHOWN as LONGEST_NAME

# the attributes of a PyTorch module, which is not imported here
_PYTORCH = """
T_destination add_module apply bfloat16 buffers call_super_init children compile cpu cuda double dump_patches eval
extra_repr float forward get_buffer get_extra_state get_parameter get_submodule half ipu load_state_dict modules mtia
named_buffers named_children named_modules named_parameters parameters register_backward_hook register_buffer
register_forward_hook register_forward_pre_hook register_full_backward_hook register_full_backward_pre_hook
register_load_state_dict_post_hook register_load_state_dict_pre_hook register_module register_parameter
register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ set_extra_state set_submodule share_memory
state_dict to to_empty train training type xpu zero_grad
"""
# what generated code calls its own beside them
_OURS = """
aux aux_loss bias blocks c correction_bias device dropout dtype embedding final_norm head init layers loss losses mask
math memory model nn position_bias prefix_len reset_parameters self state torch update_bias x
"""
# what the forward of a model calls its own, and what a dictionary of modules has beside the attributes of a module
_IN_FORWARD = """
align as_documents as_global_mask as_mask as_mask_at_ends as_positions atomic block by_document channels class_loss
clear collect count_real counted document_ids documents features given_or global_mask i images items key_mask keys
memory_documents memory_mask number_loss once order places pop positions real reorder restore rows rows_of scope
separate substate table token_types tokens values
"""
PYTORCH, OURS = frozenset(_PYTORCH.split()), frozenset(_OURS.split())
TAKEN = PYTORCH | OURS
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def bad_name(name: str) -> str:
    """What is wrong with a name that generated code will use as its own; nothing when it is right."""
    if not _WORD.fullmatch(name) or name.startswith("_") or len(name) > LONGEST_NAME:
        return f"cannot be a name: it is letters, digits and _, starts with a letter and has at most {LONGEST_NAME}"
    if name == "c":
        return "is one letter that formulas use; choose a longer word"
    if keyword.iskeyword(name) or name in TAKEN:
        return "is a word that the generated code needs; choose another"
    return ""


def bad_argument(name: str) -> str:
    """What is wrong with the name of an argument of a model's forward; nothing when it is right."""
    taken = name in _IN_FORWARD.split() or name in dir(builtins)
    return bad_name(name) or ("is a word that the generated code needs; choose another" if taken else "")


def bad_block_name(name: str) -> str:
    """What is wrong with the name of a block, which patterns use; nothing when it is right."""
    if re.fullmatch(r"x\d+", name):
        return "cannot be the name of a block: in a pattern it would be a repeat; choose another"
    if not _WORD.fullmatch(name) or len(name) > LONGEST_NAME:
        return f"cannot be the name of a block: it is letters, digits and _, at most {LONGEST_NAME}"
    return ""


def bad_size_name(name: str, taken: Collection[str]) -> str:
    """What is wrong with the name of a size, which arithmetic uses; nothing when it is right."""
    if name in taken:
        return "is a size or function that every spec has; choose another word"
    if not _WORD.fullmatch(name) or keyword.iskeyword(name) or len(name) > LONGEST_NAME:
        return f"cannot be the name of a size: it is letters, digits and _, at most {LONGEST_NAME}; choose another word"
    return ""
