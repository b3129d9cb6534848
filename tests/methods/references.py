"""What the references in plain numpy share; none of it uses torch."""

from collections.abc import Callable

import numpy as np

Array = np.ndarray


def softmax(logits: Array) -> Array:
    """Softmax over the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: Array = shifted / shifted.sum(axis=-1, keepdims=True)
    return probabilities


def kl(p: Array, q: Array) -> float:
    """KL(p || q) in nats, mean over the rows."""
    return float((p * np.log(p / q)).sum(axis=-1).mean())


def central_differences(function: Callable[[Array], float], at: Array, step: float = 1e-5) -> Array:
    """Gradient of a scalar function, by a small step to either side of each number."""
    gradient = np.zeros_like(at)
    for place in np.ndindex(*at.shape):
        up, down = at.copy(), at.copy()
        up[place] += step
        down[place] -= step
        gradient[place] = (function(up) - function(down)) / (2 * step)
    return gradient
