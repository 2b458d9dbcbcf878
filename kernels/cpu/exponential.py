"""exp for float32 in compiled loops: a polynomial, so that a loop around it becomes vector instructions."""

import numpy as np

from archspec.kernels.cpu.threads import always_inline, in_exact_order

F = np.float32
SMALLEST, LARGEST = F(-88.029693), F(88.8)  # where 2^n becomes 0 and infinity
LOG2_E = F(1.44269504)
LN2_HIGH, LN2_LOW = F(0.693359375), F(-2.12194440e-4)  # n * LN2_HIGH is exact
# exp(f) = 1 + f (P1 + f (P2 + ...)) for |f| <= ln(2) / 2, fitted for the least largest relative error (9e-8)
P1, P2, P3, P4, P5 = F(0.999999707), F(0.499991493), F(0.166676365), F(0.0418979651), F(0.00829030824)
ONE, BIAS, MANTISSA = F(1), np.int32(127), np.int32(23)


@in_exact_order
def exp(x: np.float32) -> np.float32:
    """exp(x) within 2e-7 relative; 0 below -88.03, infinity above 88.37, exactly 1 at 0, NaN at NaN."""
    always_inline()
    x = SMALLEST if x < SMALLEST else x  # in this order NaN passes
    x = LARGEST if x > LARGEST else x
    n = np.rint(x * LOG2_E)
    f = x - n * LN2_HIGH
    f = f - n * LN2_LOW
    p = ONE + f * (P1 + f * (P2 + f * (P3 + f * (P4 + f * P5))))
    return p * np.int32((np.int32(n) + BIAS) << MANTISSA).view(np.float32)


@in_exact_order
def sigmoid(x: np.float32) -> np.float32:
    """1 / (1 + exp(-x))."""
    always_inline()
    return ONE / (ONE + exp(-x))
