"""Sizes at which a kernel changes its form, and lengths of what it takes together.

They decide what a training step keeps in memory, so that the formulas of that (`archspec.layers.ops`) read them here
too: nothing in this file needs torch. Why each is what it is, is said where it is used.
"""

PAIRS_AT_ONCE = 512 * 512  # of a query and a key: up to here one mask for all of them is cheaper than tiles
PAIRS_WRITTEN_OUT = 192 * 192  # the same where scores would be written out
PAIRS_UNPADDED = 256 * 256  # of a query and a key, of one key head, from which on channels of zeros pay
NUMBERS_NORMED = 2**18  # of an RMS norm, from which on its backward pass is worth the call of an operator on a CPU
NUMBERS_TURNED = 2**18  # by RoPE; with fewer the formulas cost a CPU less than a call of the operator
SCAN_CHUNK = 16  # tokens of a selective scan; (SCAN_CHUNK, N, D) float32 products of a usual layer fit the L2 cache
WKV_CHUNK = 32  # tokens of WKV whose sums are computed again at a time, from those that entered them
