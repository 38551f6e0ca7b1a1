"""Every dim and coordinate of a model, named in one place."""

from __future__ import annotations

from typing import Any

import pymc as pm

from bayes_mtl.data import Grouping, TaskData
from bayes_mtl.data.groupings import named
from bayes_mtl.data.labels import as_coordinate

TASK, TASK_BIS = "task", "task_bis"
FEATURE, FEATURE_BIS = "feature", "feature_bis"
SHARED_FEATURE = "shared_feature"
TASK_FEATURE = "task_feature"
CANDIDATE = "candidate_feature"
FACTOR = "factor"
FEATURE_FACTOR = "feature_factor"
CLUSTER = "cluster"
ROW = "row"


def bis(dim: str) -> str:
    """Return the name of the second axis of a square matrix (a dim may occur once in a variable)."""
    return f"{dim}_bis"


def dims_of(model: pm.Model, name: str, n_axes: int) -> tuple[str, ...]:
    """Return the dims of a variable, made up if it has none."""
    return tuple(model.named_vars_to_dims.get(name) or (f"{name}_dim_{i}" for i in range(n_axes)))


def level_dims(grouping: Grouping) -> tuple[str, str]:
    """Return the dims of the effects of a grouping: its levels, and its features."""
    return grouping.name, named(grouping.name, FEATURE)


def model_coords(data: TaskData) -> dict[str, Any]:
    """Return the coordinates of a model of these data."""
    coords: dict[str, Any] = {
        ROW: data.row_names,
        TASK: as_coordinate(data.tasks),
        TASK_BIS: as_coordinate(data.tasks),
        FEATURE: list(data.features),
        FEATURE_BIS: list(data.features),
    }
    if data.shared_features:
        coords[SHARED_FEATURE] = list(data.shared_features)
    if data.task_feature_names:
        coords[TASK_FEATURE] = list(data.task_feature_names)
    for grouping in data.groupings:
        for dim, labels in zip(level_dims(grouping), (grouping.levels, grouping.features), strict=True):
            coords[dim] = coords[bis(dim)] = as_coordinate(labels)
    return coords


def own_model(data: TaskData) -> pm.Model:
    """Return an empty model with these coordinates; not a part of the model whose context it is built in."""
    return pm.Model(coords=model_coords(data), model=None)
