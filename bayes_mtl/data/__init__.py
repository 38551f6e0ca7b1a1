"""From a table to labelled, checked, sorted arrays and their sufficient statistics."""

from bayes_mtl.data.groupings import Grouping, LevelColumns
from bayes_mtl.data.level_rows import LevelRows
from bayes_mtl.data.pseudo_rows import DesignRows, PseudoRows
from bayes_mtl.data.schema import Design, TaskSchema
from bayes_mtl.data.spread import OutcomeSpread, feature_spread, outcome_spread, relative_weights
from bayes_mtl.data.statistics import TaskStatistics, sum_by_task
from bayes_mtl.data.task_data import TaskData

__all__ = [
    "Design",
    "DesignRows",
    "Grouping",
    "LevelColumns",
    "LevelRows",
    "OutcomeSpread",
    "PseudoRows",
    "TaskData",
    "TaskSchema",
    "TaskStatistics",
    "feature_spread",
    "outcome_spread",
    "relative_weights",
    "sum_by_task",
]
