"""Launch settings chosen by measuring, few of them and remembered on disk."""

from collections.abc import Callable, Sequence
from typing import Any

import triton
from triton import knobs


def tuned(configs: Sequence[triton.Config], key: Sequence[str]) -> Callable[[Any], Any]:
    """Like triton.autotune over a few configs, once for each value of the arguments named in `key`.

    The interpreter has no clock worth asking: there the first config is taken, which should be a good guess.
    """

    def wrap(kernel: Any) -> Any:
        if knobs.runtime.interpret:
            return triton.heuristics({name: lambda _, v=value: v for name, value in configs[0].kwargs.items()})(kernel)
        return triton.autotune(list(configs), list(key), cache_results=True)(kernel)

    return wrap
