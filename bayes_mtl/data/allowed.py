"""What an expression of a formula may use: arithmetic, known functions, and methods that only compute.

Formulas come out of files as well (stored fits, recipes), and an expression is evaluated. So the lists name
what may be used, and nothing on them reads or writes files, starts anything, or leads to what does. They
cannot keep an expression from taking long, or much memory.
"""

from __future__ import annotations

import ast
import builtins
from typing import Any

import numpy as np


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


BUILTINS: dict[str, Any] = {
    name: getattr(builtins, name)
    for name in _words(
        """
        abs all any bool dict divmod enumerate float int len list max min pow range reversed round set
        sorted str sum tuple zip
        """
    )
}
_NODES = (
    *(ast.Expression, ast.Constant, ast.Name, ast.Load, ast.Store, ast.Attribute, ast.Subscript, ast.Slice),
    *(ast.Call, ast.keyword, ast.Lambda, ast.arguments, ast.arg, ast.IfExp, ast.comprehension),
    *(ast.List, ast.Tuple, ast.Dict, ast.Set, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp),
    *(ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare),
    *(ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
)
_NUMPY = _words(
    """
    abs all amax amin any arange argmax argmin argsort array asarray atleast_1d average bincount
    broadcast_to choose clip column_stack concatenate corrcoef count_nonzero cov cross cumprod cumsum diff
    digitize dot dstack e eye euler_gamma fix flip full full_like geomspace gradient hstack i0 identity
    imag inf inner interp isclose isin isreal linspace logspace matmul max mean median min nan nan_to_num
    nanargmax nanargmin nancumsum nanmax nanmean nanmedian nanmin nanpercentile nanprod nanquantile nanstd
    nansum nanvar newaxis ones ones_like outer percentile pi piecewise polyval prod ptp quantile ravel
    real repeat reshape roll round searchsorted select shape sinc size sort squeeze stack std sum take
    tile transpose tri unique unwrap vander var vectorize vstack where zeros zeros_like
    """
)
_CONTRASTS = _words("SAS custom diff helmert poly sum treatment")
_METHODS = _words(
    """
    T abs add all any argmax argmin argsort astype between bfill cat clip combine_first copy corr count
    cov cummax cummin cumprod cumsum diff div divide divmod dot dt dtype duplicated empty eq ewm expanding
    explode factorize ffill fillna flatten floordiv ge get gt idxmax idxmin interpolate
    is_monotonic_decreasing is_monotonic_increasing is_unique isin isna isnull item items keys kurt le lt
    map mask max mean median min mod mode mul multiply nan ndim ne notna notnull nunique pct_change pow
    prod quantile radd rank ravel rdiv real imag replace reshape rfloordiv rmod rmul rolling round rpow
    rsub rtruediv sem shape shift size skew sort_values squeeze std str sub subtract sum to_list to_numpy
    tolist transpose truediv unique value_counts values var where

    capitalize casefold center contains endswith extract extractall find findall fullmatch get_dummies
    index isalnum isalpha isascii isdecimal isdigit islower isnumeric isspace istitle isupper join len
    ljust lower lstrip match normalize pad partition removeprefix removesuffix repeat rfind rjust
    rpartition rsplit rstrip slice split startswith strip swapcase title upper wrap zfill

    ceil date day day_name day_of_week day_of_year dayofweek dayofyear days days_in_month daysinmonth
    floor hour is_leap_year is_month_end is_month_start is_quarter_end is_quarter_start is_year_end
    is_year_start isocalendar microsecond microseconds minute month month_name nanosecond quarter second
    seconds time to_period to_timestamp total_seconds tz_convert tz_localize week weekday year

    add_categories as_ordered as_unordered categories codes ordered remove_categories
    remove_unused_categories rename_categories reorder_categories set_categories
    """
)


class NotAllowedError(Exception):
    """What an expression uses and may not, and what to do, for a finding."""


def check(tree: ast.AST) -> None:
    """Say so if an expression uses what it may not."""
    odd = dict.fromkeys(found for node in _walk(tree) if (found := _refused(node)))
    if odd:
        hint = "Compute the column beforehand, and name it"
        raise NotAllowedError(f"uses {', '.join(odd)}, which a formula may not", hint)


def _walk(tree: ast.AST) -> list[ast.AST]:
    """Return all nodes, without the modules whose functions are looked at with them."""
    modules = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _module(node)}
    return [node for node in ast.walk(tree) if id(node) not in modules]


def _module(node: ast.Attribute) -> str:
    return node.value.id if isinstance(node.value, ast.Name) and node.value.id in ("np", "contr") else ""


def _refused(node: ast.AST) -> str:
    """Return what is refused in a node itself, or nothing."""
    if isinstance(node, ast.Attribute):
        module = _module(node)
        if module == "np":
            allowed = node.attr in _NUMPY or _computes(getattr(np, node.attr, None))
        else:
            allowed = node.attr in (_CONTRASTS if module else _METHODS)
        return "" if allowed else f"{module or ''}.{node.attr}"
    if isinstance(node, ast.Name):
        # Alone a module could be handed on, and be looked into elsewhere.
        return node.id if node.id in ("np", "contr") or node.id.startswith("__") else ""
    if isinstance(node, ast.Constant):
        return "" if isinstance(node.value, int | float | complex | str | None) else repr(node.value)
    return "" if isinstance(node, _NODES) else _written(node)


def _computes(member: Any) -> bool:
    """Whether a member of NumPy is a function of numbers, entry by entry, or a type of them."""
    return isinstance(member, np.ufunc) or (
        isinstance(member, type) and issubclass(member, np.number | np.bool_ | np.str_)
    )


def _written(node: ast.AST) -> str:
    try:
        return repr(ast.unparse(node))
    except (AttributeError, ValueError):  # a part that cannot stand alone
        return type(node).__name__
