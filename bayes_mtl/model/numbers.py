"""The numbers that a graph reads: constants, or variables that take those of other data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytensor

from bayes_mtl._typing import Tensor

Numbers = Callable[[str, Any], Tensor]  # from a name and its values to what the graph reads


def constants(name: str, values: Any) -> Tensor:
    """Write the values into the graph."""
    return np.asarray(values)


def variables(name: str, values: Any) -> Tensor:
    """Leave a named variable of this shape in the graph, so that it need not be compiled for other values."""
    array = np.array(values)
    return pytensor.shared(array, name=name, shape=array.shape)
