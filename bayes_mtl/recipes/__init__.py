"""Recipes: a question, a table and a model as one TOML file."""

from bayes_mtl.recipes.errors import RecipeError
from bayes_mtl.recipes.recipe import Recipe, list_recipes, load_recipe
from bayes_mtl.recipes.simulate import (
    SIMULATIONS,
    Simulation,
    faces,
    mixed_tastes,
    per_user_spam,
    river_delta,
    yield_of_plants,
)
from bayes_mtl.recipes.sources import DataSource, read_table

__all__ = [
    "SIMULATIONS",
    "DataSource",
    "Recipe",
    "RecipeError",
    "Simulation",
    "faces",
    "list_recipes",
    "load_recipe",
    "mixed_tastes",
    "per_user_spam",
    "read_table",
    "river_delta",
    "yield_of_plants",
]
