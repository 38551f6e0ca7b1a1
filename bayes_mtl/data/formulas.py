"""The text of a formula: its two sides, the columns that each reads, and its terms."""

from __future__ import annotations

import keyword
import re
import unicodedata
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from formulaic import Formula
from formulaic.parser.types import Term

from bayes_mtl.data.allowed import BUILTINS
from bayes_mtl.data.expressions import FUNCTIONS
from bayes_mtl.errors import DataError, DataWarning, Finding

MODULES = ("np", "contr")  # before a dot these are always the modules; in backticks, columns
_NOT_COLUMNS = {"and", "else", "for", "if", "in", "is", "lambda", "not", "or", "None", "True", "False"}
_WORD = r"(?:[^\W\d]|[^\x00-\x7f\s])(?:\w|[^\x00-\x7f\s])*"
_PIECES = re.compile(
    rf"""(?P<text>'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")
    |`(?P<quoted>[^`]+)`
    |(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    |(?P<word>{_WORD}(?:\.{_WORD})*)
    |(?P<odd>\d[\w.]*)
    |(?P<space>\s+)
    |(?P<mark>\*\*|[=!<>]=|.)""",
    re.VERBOSE | re.DOTALL,
)
_PATSY_QUOTE = re.compile(r"""\bQ\(\s*(["'])([^"'`]+)\1\s*\)""")
_BOUND = re.compile(r"\blambda\s+([\w\s,]+):|\bfor\s+([\w\s,]+?)\s+in\b")
_HINTS = {
    "offset": "An offset is a column: pass its name as `offset=`",
    "factor": "Write C(x) for a factor",
    "as.factor": "Write C(x) for a factor",
    "TRUE": "Write True",
    "FALSE": "Write False",
    "cbind": "Give several outcomes as `outcomes=[...]`",
    "T": "To take a column out of the design, write it in backticks: y ~ a * b - `a[T.r]:b[T.w]`",
}
_KNOWN = (
    "C",
    "I",
    "center",
    "scale",
    "standardize",
    "poly",
    "bs",
    "cr",
    "cc",
    "log",
    "log1p",
    "exp",
    "sqrt",
    "abs",
)
_ALIAS = re.compile(r"_column_(\d+)_")


@dataclass(frozen=True)
class _Piece:
    kind: str
    text: str
    inside: bool  # of a call, of brackets after a name, or of braces: Python, not terms
    depth: int


@dataclass(frozen=True)
class Side:
    """One side of a formula, in which names that Python can hold stand for the columns.

    Attributes
    ----------
    written : str
        As it was given.
    text : str
        With the names in the place of columns, and `^` written as `**`.
    columns : tuple of str
        The columns that are read, in the order of their names.
    unknown, foreign : tuple of str
        Words that are no columns; functions that there are not, and words of other languages.
    removed : tuple of str
        Columns of the design that are taken out: names in backticks after a minus.
    """

    written: str
    text: str
    columns: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    @property
    def is_column(self) -> bool:
        """Whether it is one column as it stands."""
        return len(self.columns) == 1 and self.text.strip() == alias(0)

    @property
    def findings(self) -> list[Finding]:
        """What to write instead of functions and words that have no meaning here."""
        where = f"formula {self.written!r}"
        functions = f"Functions: {', '.join(_KNOWN)}, and those of NumPy after np"
        return [
            Finding(
                where, f"has {word!r}, which has no meaning here", _HINTS.get(word.rstrip("("), functions)
            )
            for word in self.foreign
        ]

    def names(self, expression: str) -> set[str]:
        """Return the columns that a part of the text reads."""
        return {self.columns[int(m)] for m in _ALIAS.findall(expression)}

    def shown(self, expression: str) -> str:
        """Return a part of the text with the columns in it."""
        if whole := _ALIAS.fullmatch(expression):
            return self.columns[int(whole[1])]
        return _ALIAS.sub(lambda m: quote(self.columns[int(m[1])]), expression)


def alias(position: int) -> str:
    """Return the name that stands for a column."""
    return f"_column_{position}_"


def quote(column: str) -> str:
    """Quote a column name for a formula."""
    return column if column.isidentifier() and not keyword.iskeyword(column) else f"`{column}`"


def column_side(column: str) -> Side:
    """Return the side of a formula that is one column, whatever its name."""
    return Side(written=quote(column), text=alias(0), columns=(column,))


def split_formula(formula: str) -> tuple[str, str] | None:
    """Return both sides of the `~` that is not inside of a call; None where there is none."""
    at = 0
    for piece, match in _pieces(formula):
        if piece.text == "~" and not piece.inside:
            at = match.start()
            return formula[:at].strip(), formula[at + 1 :].strip()
    return None


def read_side(text: str, names: Collection[str], *, python: bool = False) -> Side:
    """Find the columns in one side of a formula.

    A word before "(" is a function and "np." is NumPy, whatever the columns are called; a name in
    backticks is always a column.

    Parameters
    ----------
    names : collection of str
        The columns of the table.
    python : bool
        Whether the whole side is one expression, in which braces are parentheses (as left of `~`).
    """
    text = _PATSY_QUOTE.sub(r"`\2`", text)
    bound = {word for found in _BOUND.findall(text) for word in re.findall(r"\w+", "".join(found))}
    pieces = [piece for piece, _ in _pieces(text)]
    have = {name for name in names if isinstance(name, str)}
    columns: dict[str, str] = {}  # with their names in the text
    unknown: list[str] = []
    removed: list[str] = []
    out: list[str] = []

    def stands_for(column: str) -> str:
        return columns.setdefault(column, alias(len(columns)))

    for piece, before, after in zip(pieces, _texts_before(pieces), _texts_after(pieces), strict=True):
        inside = piece.inside or python or (piece.kind == "word" and after == "(")
        if piece.kind == "quoted":
            found = _column(piece.text, have)
            if found is not None:
                out.append(stands_for(found))
            elif before == "-" and not inside:
                removed.append(piece.text)
                while out.pop().strip() != "-":
                    pass
            else:
                unknown.append(piece.text)
        elif piece.kind == "odd" and not inside:
            found = _column(piece.text, have)
            out.append(piece.text if found is None else stands_for(found))
            unknown += [piece.text] if found is None else []
        elif piece.kind == "word" and not (before == "." or (inside and after == "=")):
            out.append(_word(piece.text, after, inside, have, stands_for, unknown))
        elif piece.text == "^":
            out.append("**")
        elif piece.kind == "space":
            out.append(" ")  # Python does not know the other kinds of space
        elif python and piece.depth == 0 and piece.text in "{}":
            out.append("(" if piece.text == "{" else ")")
        else:
            out.append(piece.text)
    odd = [word for word in dict.fromkeys(unknown) if word not in bound]
    return Side(
        written=text,
        text="".join(out),
        columns=tuple(columns),
        unknown=tuple(word for word in odd if word not in _HINTS and not word.endswith("(")),
        foreign=tuple(word for word in odd if word in _HINTS or word.endswith("(")),
        removed=tuple(removed),
    )


def _word(
    word: str,
    after: str,
    inside: bool,
    have: Collection[str],
    stands_for: Callable[[str], str],
    unknown: list[str],
) -> str:
    """Return what stands for a word of a formula: a column (perhaps with an attribute), or itself."""
    parts = word.split(".")
    if word in _NOT_COLUMNS and (inside or word not in have):
        return word
    if inside:
        if parts[0] in MODULES and len(parts) > 1:
            return word
        if len(parts) == 1 and after == "(":  # a function
            if word not in FUNCTIONS and word not in BUILTINS:
                unknown.append(word if word in _HINTS else f"{word}(")
            return word
    # Of `a.b.mean(`, the last part is a method; of `a.b`, the longest column is meant.
    longest = len(parts) - (1 if after == "(" else 0)
    for n in range(longest, 0, -1):
        found = _column(".".join(parts[:n]), have)
        if found is not None and (inside or n == len(parts)):
            return ".".join([stands_for(found), *parts[n:]])
    if not (inside and (parts[0] in FUNCTIONS or parts[0] in BUILTINS)):
        unknown.append(word if not inside or word in _HINTS else parts[0])
    return word


def _texts_before(pieces: Sequence[_Piece]) -> list[str]:
    """Return, for each piece, the text of the last one before it that is no space."""
    texts = accumulate(pieces, lambda last, p: last if p.kind == "space" else p.text, initial="")
    return list(texts)[:-1]


def _texts_after(pieces: Sequence[_Piece]) -> list[str]:
    return _texts_before(pieces[::-1])[::-1]


def _column(name: str, have: Collection[str]) -> str | None:
    """Return the column of this name; one that is written with other code points if no other is meant."""
    if name in have:
        return name
    alike = [c for c in have if unicodedata.normalize("NFC", c) == unicodedata.normalize("NFC", name)]
    return alike[0] if len(alike) == 1 else None


def terms_of(side: Side) -> list[Term]:
    """Return the terms of a right-hand side; their factors are expressions of its text."""
    hint = "Tasks come from `task=`: write 'y ~ x', and name shared slopes in `shared_features`"
    where = f"formula {side.written!r}"
    pieces = [piece for piece, _ in _pieces(side.written) if not piece.inside and piece.kind != "space"]
    marks = {piece.text for piece in pieces if piece.kind == "mark"}
    if "|" in marks:
        raise DataError(Finding(where, "has '|', which has no meaning here", hint))
    if "~" in marks:
        raise DataError(Finding(where, "has a second '~'"))
    if "." in marks:
        raise DataError(Finding(where, "has '.', which has no meaning here", "Name the columns"))
    try:
        return list(Formula(side.text))
    except Exception as err:  # formulaic raises errors of many kinds at texts that are no formula
        raise DataError(Finding(where, f"cannot be read ({side.shown(plain(err))})")) from err


def warn_of_powers(side: Side) -> None:
    """Warn where a column is raised to a power outside of a call: in the algebra of terms, the column."""
    pieces = [piece for piece, _ in _pieces(side.written) if not piece.inside and piece.kind != "space"]
    for one, two in pairwise(pieces):
        if one.kind in ("word", "quoted") and two.text in ("^", "**"):
            term = f"{quote(one.text)}{two.text}"
            found = f"{side.written!r}: a power of one term is that term. Write I({term}2) for a square."
            warnings.warn(found, DataWarning, stacklevel=4)


def plain(err: Exception) -> str:
    """Return a message without terminal colours and line breaks."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|[⧛⧚]", "", str(err)).split())


def _pieces(text: str) -> Iterator[tuple[_Piece, re.Match[str]]]:
    """Cut a formula into words, numbers, texts and marks, each with whether it is inside of Python."""
    open_: list[bool] = []
    last = ""
    for match in _PIECES.finditer(text):
        kind = str(match.lastgroup)
        value = match["quoted"] if kind == "quoted" else match[0]
        if value in (")", "]", "}") and open_:
            open_.pop()
        yield _Piece(kind, value, bool(open_) and open_[-1], len(open_)), match
        if kind == "mark" and value in "([{":
            called = last in ("word", "quoted", "odd", "close")
            open_.append(value == "{" or called or (bool(open_) and open_[-1]))
        if kind != "space":
            last = "close" if kind == "mark" and value in ")]}" else kind
