"""One expression of a formula, evaluated for rows.

Numbers are float64 whenever anything is computed from them: true and true is two, nothing wraps
around. Transforms that learn (`center`, `scale`, `poly`, `bs`, ...) keep what they learned in a state.
An expression uses what `allowed` lists and nothing else, since it may come out of a file.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Mapping
from functools import wraps
from typing import Any

import numpy as np
import pandas as pd
from formulaic.transforms import TRANSFORMS

from bayes_mtl.data import allowed

FUNCTIONS: dict[str, Any] = {
    **TRANSFORMS,
    "exp10": lambda x: np.power(10.0, x),  # formulaic has x**10
    "sqrt": np.sqrt,
    "abs": np.abs,
    "log1p": np.log1p,
    "expm1": np.expm1,
}
_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)


class Expression:
    """Code of an expression over columns.

    Parameters
    ----------
    text : str
        Python, in which every column is a name.

    Raises
    ------
    NotAllowedError
        If it uses what a formula may not.
    """

    def __init__(self, text: str):
        tree = ast.parse(text.strip(), mode="eval")
        allowed.check(tree)
        tree = _Numbers().visit(tree)
        self._code = compile(ast.fix_missing_locations(tree), "<formula>", "eval")

    def __call__(self, columns: Mapping[str, Any], state: dict[str, Any]) -> Any:
        """Evaluate it; transforms learn what `state` does not hold yet, and put it there."""
        names = {
            **FUNCTIONS,
            **columns,
            "_number": _number,
            "_function": _function,
            "_state": lambda key: state.setdefault(key, {}),
            "__builtins__": allowed.BUILTINS,
        }
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore", RuntimeWarning)  # log of zero: what is not finite is reported
            return eval(self._code, names)


class _Numbers(ast.NodeTransformer):
    """Make operands of arithmetic numbers, and give transforms that learn their state."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, _ARITHMETIC):
            node.left, node.right = _call("_number", node.left), _call("_number", node.right)
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, ast.USub | ast.UAdd):
            node.operand = _call("_number", node.operand)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        key = ast.unparse(node)
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        self.generic_visit(node)
        if getattr(FUNCTIONS.get(name), "__is_stateful_transform__", False):
            node.keywords.append(ast.keyword("_state", _call("_state", ast.Constant(key))))
        else:
            node.func = _call("_function", node.func)
        return node


def _call(name: str, argument: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), [argument], [])


def _number(value: Any) -> Any:
    """Return truth values and whole numbers as float64, anything else as it is."""
    if isinstance(value, pd.Series):
        return value.astype(float) if value.dtype.kind in "biu" else value
    if isinstance(value, np.ndarray | np.generic):
        return value.astype(np.float64) if value.dtype.kind in "biu" else value
    return value


def _function(function: Any) -> Any:
    """Return a function of numbers that reads truth values as float64 (of truth, `np.exp` has 3 digits)."""
    if not isinstance(function, np.ufunc):
        return function
    of_truth = any("?" in kind.partition("->")[0] for kind in function.types)

    @wraps(function)
    def of_numbers(*values: Any, **options: Any) -> Any:
        if len(values) > function.nin:  # NumPy would write its values into the next argument
            raise TypeError(f"{function.__name__} has {function.nin} argument{'s' * (function.nin > 1)}")
        return function(*(values if of_truth else map(_number, values)), **options)

    return of_numbers
