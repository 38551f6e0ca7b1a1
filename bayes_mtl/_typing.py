"""Names for the types that the package passes around."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Label = Hashable
JSON = Mapping[str, Any]
Tensor = Any  # a pytensor TensorVariable; pytensor ships no usable stubs
