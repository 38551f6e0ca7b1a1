"""The right-hand side of a formula, so remembered that new rows become the same design matrix."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from formulaic import Formula
from formulaic.errors import DataMismatchWarning
from formulaic.parser.types import Factor, Term

from bayes_mtl._typing import FloatArray
from bayes_mtl.data.allowed import NotAllowedError
from bayes_mtl.data.columns import (
    INTERCEPT,
    ColumnTypes,
    missing,
    named,
    not_there,
    text_hint,
    unfit_columns,
)
from bayes_mtl.data.expressions import Expression
from bayes_mtl.data.factors import FactorError, LearnedFactor, learn, level_findings, repeat
from bayes_mtl.data.formulas import Side, plain, read_side, terms_of, warn_of_powers
from bayes_mtl.data.frames import column_names, missing_columns, to_pandas
from bayes_mtl.errors import DataError, Finding, FindingsError, StorageError, raise_if_any


@dataclass(frozen=True)
class Design:
    """The right-hand side of a formula, with all it learned from the first table.

    Attributes
    ----------
    formula : str
        Right-hand side, in formulaic's syntax.
    reads : tuple of str
        Columns of the table that it reads.
    types : ColumnTypes
        Their levels, and which are text or truth values.
    factors : dict
        For each term that is computed by an expression, what it learned.
    columns, terms : tuple of str
        Columns of the design matrix, and for each the term that it comes from.
    center : tuple of float
        What is subtracted from each column (zero where nothing is).
    """

    formula: str
    reads: tuple[str, ...]
    types: ColumnTypes = field(default_factory=ColumnTypes)
    factors: dict[str, LearnedFactor] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    terms: tuple[str, ...] = ()
    center: tuple[float, ...] = ()

    @classmethod
    def learn(
        cls, formula: str, table: Any, *, center: bool | Sequence[str] = False
    ) -> tuple[Design, FloatArray]:
        """Build the design matrix of a table, and the `Design` that repeats it on new rows.

        Rows in which a column that is read is missing teach nothing, and are NaN.
        """
        side = known_side(formula, table)
        terms = terms_of(side)
        warn_of_powers(side)
        reads = tuple(sorted(side.columns))
        raw = to_pandas(table, reads, DataError)
        complete = raw.notna().all(axis=1).to_numpy()
        if not complete.any():
            raise DataError(missing(raw) or Finding("table", "has no rows"))
        raise_if_any(unfit_columns(raw), DataError)
        frame = raw[complete].reset_index(drop=True)
        bare = _bare(side, terms)
        types = ColumnTypes.learn(frame, bare)
        columns = types.columns(frame)
        findings = types.findings(columns, bare)
        factors: dict[str, LearnedFactor] = {}
        values = types.values(columns, bare)
        for factor in _factors(terms, "python"):
            shown = side.shown(factor.expr)
            read = named(side, columns, factor.expr)
            try:
                factors[shown], values[shown], first = learn(Expression(factor.expr), read, len(frame))
                if (levels := factors[shown].levels) is not None:
                    findings += level_findings(f"term {shown!r}", levels, first, declared=True)
            except (FactorError, NotAllowedError) as err:
                findings.append(Finding(f"term {shown!r}", *err.args))
            except Exception as err:
                problem = f"cannot be evaluated ({side.shown(plain(err))})"
                findings.append(Finding(f"term {shown!r}", problem, text_hint(side, columns, factor.expr)))
        raise_if_any(findings, DataError)
        matrix, made, of_term = _materialise(side, terms, values, len(frame), DataError)
        keep, chosen = _kept(side, made, center)
        matrix = matrix[:, keep]
        shift = [
            float(np.mean(matrix[np.isfinite(matrix[:, i]), i])) if made[k] in chosen else 0.0
            for i, k in enumerate(keep)
        ]
        design = cls(
            formula=formula,
            reads=reads,
            types=types,
            factors=factors,
            columns=tuple(made[k] for k in keep),
            terms=tuple(of_term[k] for k in keep),
            center=tuple(shift),
        )
        out = np.full((len(raw), len(keep)), np.nan)
        out[complete] = matrix - np.asarray(shift)
        return design, out

    def matrix(self, table: Any, error: type[FindingsError]) -> FloatArray:
        """Build the design matrix of new rows, with the levels and states of the first table."""
        frame = to_pandas(table, self.reads, error)
        side = read_side(self.formula, self.reads)
        terms = terms_of(side)
        bare = _bare(side, terms)
        raise_if_any(self.types.new_findings(frame, bare), error)
        columns = self.types.columns(frame)
        values = self.types.values(columns, bare)
        findings = []
        for factor in _factors(terms, "python"):
            shown = side.shown(factor.expr)
            read = named(side, columns, factor.expr)
            try:
                values[shown] = repeat(self.factors[shown], Expression(factor.expr), read, len(frame))
            except (FactorError, NotAllowedError) as err:
                findings.append(Finding(f"term {shown!r}", *err.args))
            except Exception as err:
                problem = f"cannot be evaluated on these rows ({side.shown(plain(err))})"
                findings.append(Finding(f"term {shown!r}", problem))
        raise_if_any(findings, error)
        made, names, _ = _materialise(side, terms, values, len(frame), error)
        matrix = made[:, [names.index(c) for c in self.columns]]
        bad = ~np.isfinite(matrix)
        if bad.any():
            odd = [c for c, is_bad in zip(self.columns, bad.any(axis=0), strict=True) if is_bad]
            raise error(not_there(odd, np.flatnonzero(bad.any(axis=1))))
        return matrix - np.asarray(self.center)

    def columns_of(self, name: str) -> list[str]:
        """Return the columns that a name means: of one column, or of a term, however it is spaced."""
        wanted = _spelling(name)
        both = zip(self.columns, self.terms, strict=True)
        return [column for column, term in both if wanted in (_spelling(column), _spelling(term))]

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Design:
        """Read what `to_dict` wrote."""
        if "types" not in values:
            raise StorageError(
                "The design was stored by an earlier version, which forgot the levels of computed factors. "
                "Fit the model again"
            )
        parts = dict(values)
        for name in ("reads", "columns", "terms", "center"):
            parts[name] = tuple(parts[name])
        types = parts["types"]
        parts["types"] = ColumnTypes(types["levels"], tuple(types["text"]), tuple(types["flags"]))
        parts["factors"] = {k: LearnedFactor(**v) for k, v in parts["factors"].items()}
        return cls(**parts)


def known_side(text: str, table: Any, *, python: bool = False) -> Side:
    """Read one side of a formula, all of whose columns the table has."""
    side = read_side(text, column_names(table), python=python)
    raise_if_any([*missing_columns(table, side.unknown), *side.findings], DataError)
    return side


def evaluate_outcome(side: Side, table: Any) -> FloatArray:
    """Evaluate the left-hand side of a formula as one expression; rows with missing columns are NaN."""
    where = f"outcome {side.written!r}"
    raw = to_pandas(table, side.columns, DataError)
    complete = raw.notna().all(axis=1).to_numpy()
    frame = raw[complete].reset_index(drop=True)
    columns = ColumnTypes.learn(frame, ()).columns(frame)
    try:
        found = Expression(side.text)(named(side, columns, side.text), {})
    except NotAllowedError as err:
        raise DataError(Finding(where, *err.args)) from err
    except SyntaxError as err:
        hint = "It should be one expression, for example log(y) or after - before"
        raise DataError(Finding(where, f"cannot be read ({err.msg})", hint)) from err
    except Exception as err:
        problem = f"cannot be evaluated ({side.shown(plain(err))})"
        raise DataError(Finding(where, problem, text_hint(side, columns, side.text))) from err
    values = np.asarray(getattr(found, "__wrapped__", found))
    is_number = values.dtype.kind in "biuf" and not hasattr(found, "__formulaic_metadata__")
    if values.shape != (len(frame),) or not is_number:
        kind = f"shape {values.shape}" if is_number else "levels"
        raise DataError(Finding(where, f"should be one numeric column, found {kind}"))
    out = np.full(len(raw), np.nan)
    out[complete] = values.astype(float)
    return out


def _spelling(name: str) -> str:
    return "".join(name.replace("^", "**").replace("`", "").replace('"', "'").split())


def _bare(side: Side, terms: Sequence[Term]) -> list[str]:
    """Return the columns that are factors as they stand."""
    return sorted({name for f in _factors(terms, "lookup") for name in side.names(f.expr)})


def _factors(terms: Sequence[Term], method: str) -> list[Factor]:
    """Return the factors of all terms that are columns ("lookup") or computed ("python")."""
    factors = {f.expr: f for term in terms for f in term.factors if f.eval_method.value == method}
    return list(factors.values())


def _kept(side: Side, columns: Sequence[str], center: bool | Sequence[str]) -> tuple[list[int], set[str]]:
    """Return which columns of a design are kept, and which of them are centered."""
    findings = []
    where = f"formula {side.written!r}"
    known = f"Columns of the design: {', '.join(columns)}"
    if gone := [name for name in side.removed if name not in columns]:
        findings.append(Finding(where, f"takes out {gone}, which it does not have", known))
    keep = [i for i, name in enumerate(columns) if name not in side.removed]
    left = [columns[i] for i in keep]
    if repeated := sorted({c for c in left if left.count(c) > 1}):
        findings.append(Finding(where, f"has two columns of the name {repeated}", "Rename one"))
    chosen = set(left) - {INTERCEPT} if center is True else set()
    if not isinstance(center, bool):
        spelled = {_spelling(c): c for c in left}
        if unknown := sorted(c for c in center if _spelling(c) not in spelled):
            findings.append(Finding("center", f"names {unknown}", known))
        chosen = {spelled[_spelling(c)] for c in center if _spelling(c) in spelled}
    raise_if_any(findings, DataError)
    return keep, chosen


def _materialise(
    side: Side, terms: Sequence[Term], values: Mapping[str, Any], rows: int, error: type[FindingsError]
) -> tuple[FloatArray, list[str], list[str]]:
    """Let formulaic code and multiply the factors; return the matrix, its columns, and the term of each."""
    by_name = [
        Term(
            f if f.eval_method.value == "literal" else Factor(side.shown(f.expr), eval_method="lookup")
            for f in term.factors
        )
        for term in terms
    ]
    empty = pd.DataFrame(index=range(rows))
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataMismatchWarning)
        try:
            made: Any = Formula(by_name).get_model_matrix(
                empty, context=values, na_action="ignore", output="pandas"
            )
        except Exception as err:  # contrasts that do not fit, levels outside of those that C() names
            found = f"cannot be evaluated ({plain(err)})"
            raise error(Finding(f"formula {side.written!r}", found)) from err
    of_term = [
        INTERCEPT if str(term) == "1" else str(term)
        for term, at in made.model_spec.term_slices.items()
        for _ in range(at.stop - at.start)
    ]
    matrix = np.ascontiguousarray(made.to_numpy(dtype=float, na_value=np.nan))
    return matrix, [str(c) for c in made.columns], of_term
