"""Vocabularies at work: text to ids and back, one text or a padded batch.

What a vocabulary is stands in `archspec/layers/vocabularies/`; how it encodes and decodes in the file here that its
declaration names (`runs`). No file is read before a text is encoded, and PyTorch is needed by batches alone.
"""

from importlib import import_module

from archspec.errors import VocabularyError
from archspec.language.model import Spec, need_spec
from archspec.vocabulary.base import Vocabulary


def vocabulary(spec: Spec) -> Vocabulary:
    """The vocabulary of a spec.

    Raises:
        VocabularyError: the spec names none.
    """
    need_spec(spec)
    declared = spec.vocabulary
    if declared is None:
        raise VocabularyError(f"{spec.name} names no vocabulary; write one into the spec, such as `vocabulary: bytes`")
    module = import_module(f"archspec.vocabulary.{declared.runs}")
    made: Vocabulary = module.make(declared, spec.folder)
    return made
