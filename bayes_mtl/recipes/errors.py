"""What can be wrong with a recipe or with the table it asks for."""

from __future__ import annotations

from bayes_mtl.errors import FindingsError


class RecipeError(FindingsError):
    """A recipe is not valid, or its data cannot be had."""

    headline = "The recipe has {n} problem{s}"
