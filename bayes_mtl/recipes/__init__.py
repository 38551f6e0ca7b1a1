"""Recipes: a question, a table and a model as one TOML file."""

from bayes_mtl.recipes.errors import RecipeError
from bayes_mtl.recipes.recipe import Recipe, list_recipes, load_recipe
from bayes_mtl.recipes.simulate import SIMULATIONS, Simulation, per_user_spam, yield_of_plants
from bayes_mtl.recipes.sources import DataSource, read_table

__all__ = [
    "SIMULATIONS",
    "DataSource",
    "Recipe",
    "RecipeError",
    "Simulation",
    "list_recipes",
    "load_recipe",
    "per_user_spam",
    "read_table",
    "yield_of_plants",
]
