"""What a formula means, and that new rows are read as the first table was."""

from __future__ import annotations

import contextlib
import json
import re
import warnings

import formulaic
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bayes_mtl as mtl
from bayes_mtl.data.design import Design, evaluate_outcome, known_side
from bayes_mtl.data.formulas import read_side, split_formula
from bayes_mtl.errors import DataError, DataWarning, PredictionError

N = 60
RNG = np.random.default_rng(0)
TABLE = pd.DataFrame(
    {
        "g": np.repeat(list("abcdef"), 10),
        "x": RNG.uniform(0.1, 3, N),
        "z": RNG.standard_normal(N),
        "k": RNG.integers(1, 5, N),
        "flag": RNG.random(N) < 0.5,
        "arm": RNG.permutation(np.tile(["p", "q", "r"], 20)),
        "size": pd.Categorical(RNG.permutation(np.tile(["s", "m", "l"], 20)), categories=["s", "m", "l"]),
        "y": RNG.standard_normal(N),
    }
)
NAMES = ["x", "z", "k", "flag", "arm", "size"]
TERMS = [
    "x",
    "flag",
    "arm",
    "size",
    "C(k)",
    "C(k, contr.sum)",
    "C(k, contr.helmert)",
    "C(k, contr.poly)",
    "C(k, contr.treatment(base=2))",
    "C(k, levels=[4, 3, 2, 1])",
    "C(x > 1)",
    "C(size)",
    "C(arm, contr.sum)",
    "{arm.str.upper() + '1'}",
    "{np.where(z > 0, 'up', 'down')}",
    "{k.map({1: 'one', 2: 'two', 3: 'two', 4: 'one'})}",
    "I(x^2)",
    "{~flag}",
    "{flag & (z > 0)}",
    "log(x)",
    "center(x)",
    "scale(z)",
    "standardize(z)",
    "poly(x, 2)",
    "poly(x, 2, raw=True)",
    "bs(x, df=4)",
    "cr(x, df=4)",
    "I(scale(x) * center(z))",
    "np.exp(-x / 2)",
    "hashed(arm, levels=3)",
    "arm.isin(['p', 'q'])",
    "abs(z)",
    "scale(x, center=False, scale=x.max())",
    "scale(x, center=x.median(), scale=x.std())",
]


def same_again(design: Design, table: pd.DataFrame, matrix: np.ndarray) -> None:
    """Assert that rows are read as they were: together, one by one, backwards, after a trip through JSON."""
    again = Design.from_dict(json.loads(json.dumps(design.to_dict())))
    tolerance = {"rtol": 1e-9, "atol": 1e-10}
    np.testing.assert_allclose(again.matrix(table, PredictionError), matrix, **tolerance)
    np.testing.assert_allclose(again.matrix(table.iloc[::-1], PredictionError), matrix[::-1], **tolerance)
    for row in (0, 7, len(table) - 1):
        one = again.matrix(table.iloc[[row]], PredictionError)
        np.testing.assert_allclose(one, matrix[[row]], **tolerance)


class TestNewRows:
    @pytest.mark.parametrize("term", TERMS)
    def test_every_kind_of_term(self, term):
        design, matrix = Design.learn(term, TABLE, center=True)
        same_again(design, TABLE, matrix)

    @given(
        terms=st.lists(st.sampled_from(TERMS), min_size=1, max_size=3, unique=True),
        cross=st.booleans(),
        intercept=st.booleans(),
    )
    def test_and_their_products(self, terms, cross, intercept):
        formula = ("" if intercept else "0 + ") + (":" if cross else " + ").join(terms)
        design, matrix = Design.learn(formula, TABLE)
        same_again(design, TABLE, matrix)

    @pytest.mark.parametrize(
        ("term", "change", "said"),
        [
            ("C(k)", {"k": 9}, r"C\(k\).*\[9\].*Known: \[1, 2, 3, 4\]"),
            ("C(k, contr.sum)", {"k": 0}, r"levels \[0\]"),
            ("C(k.clip(2, 9))", {"k": 9}, "unknown levels"),
            ("{arm.str.upper()}", {"arm": "s"}, r"column 'arm'.*\['s'\]"),
            ("arm", {"arm": None}, "missing.*'arm'"),
            ("{arm == 'q'}", {"arm": None}, "missing.*'arm'"),
            ("I(x > 1)", {"x": np.nan}, "missing.*'x'"),
            ("x", {"x": "much"}, "found text"),
            ("log(x)", {"x": 0.0}, "not finite"),
        ],
    )
    def test_what_was_never_seen(self, term, change, said):
        design, _ = Design.learn(term, TABLE)
        with pytest.raises(PredictionError, match=said):
            design.matrix(TABLE.iloc[:3].assign(**change), PredictionError)

    def test_truth_values_may_come_as_numbers(self):
        design, matrix = Design.learn("{~flag} + flag", TABLE)
        again = design.matrix(TABLE.assign(flag=TABLE.flag.astype(int)), PredictionError)
        np.testing.assert_array_equal(again, matrix)

    def test_whole_numbers_are_whole_levels(self):
        for k in (TABLE.k, TABLE.k.astype(float), TABLE.k.astype("uint8"), TABLE.k.astype("Int64")):
            design, _ = Design.learn("C(k)", TABLE.assign(k=k))
            assert design.columns[1:] == ("C(k)[T.2]", "C(k)[T.3]", "C(k)[T.4]")
        design, _ = Design.learn("C(flag)", TABLE)
        assert design.columns[1:] == ("C(flag)[T.True]",)


class TestOtherRows:
    @pytest.mark.parametrize(
        "term",
        [
            "I(x - x.mean())",
            "I(x / x.max())",
            "{x / x.sum()}",
            "x.rank()",
            "{x - np.mean(x)}",
            "{(x > x.median())}",
            "C(x > np.quantile(x, 0.9))",
            "{x.clip(upper=x.quantile(0.95))}",
            "{x.shift(1).fillna(0)}",
            "lag(x)",
            "x.cumsum()",
            "{x - x.min()}",
            "np.sort(x)",
            "{z / np.std(z)}",
            "I(center(x) / x.max())",
            "scale(x - x.mean())",
            "{np.arange(len(x))}",
            "arm.map(arm.value_counts())",
            "{x.fillna(x.mean()) - x.mean()}",
            "{arm == arm.mode()[0]}",
            "{np.where(x > 0, x, x.mean())}",  # x is positive in every row
            "{x.clip(upper=10 * x.max())}",
            "{x.where(x < 5, np.nanmedian(x))}",
            "{x.astype('category').cat.codes}",
            "{x.duplicated()}",
            "arm.str.get_dummies()",
        ],
    )
    def test_are_not_read(self, term):
        with pytest.raises(DataError, match=r"reads other rows.*center\(x\)"):
            Design.learn(term, TABLE)

    def test_one_value_for_all_rows(self):
        with pytest.raises(DataError, match="one value for each row"):
            Design.learn("np.mean(x)", TABLE)


NUMBERS = ["i8", "u8", "i64", "big", "f32", "f64", "flag"]


@st.composite
def expressions(draw, depth=3):
    """An expression over numeric columns, and what it is in float64."""
    kind = draw(st.sampled_from(["column", "number", "binary", "minus", "power", "compare", "call"]))
    if depth == 0 or kind == "column":
        name = draw(st.sampled_from(NUMBERS))
        return name, lambda t: t[name].to_numpy(float)
    if kind == "number":
        value = draw(st.integers(1, 300))
        return str(value), lambda _: float(value)
    left, of_left = draw(expressions(depth=depth - 1))
    if kind == "minus":
        return f"(-{left})", lambda t: -of_left(t)
    if kind == "power":
        power, sign = draw(st.integers(1, 4)), draw(st.sampled_from(["^", "**"]))
        return f"({left}){sign}{power}", lambda t: of_left(t) ** float(power)
    if kind == "call":
        name, function = draw(st.sampled_from([("exp", np.exp), ("np.sin", np.sin), ("I", lambda v: v)]))
        return f"{name}(({left}) / 1000)", lambda t: function(of_left(t) / 1000)
    right, of_right = draw(expressions(depth=depth - 1))
    if kind == "compare":
        return f"(({left}) > ({right}))", lambda t: np.asarray(of_left(t) > of_right(t)).astype(float)
    sign = draw(st.sampled_from("+-*/"))
    function = {"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide}[sign]
    return f"({left} {sign} {right})", lambda t: function(of_left(t), of_right(t))


class TestNumbers:
    @given(expressions(), st.integers(0, 2**32 - 1))
    def test_are_float64_before_anything_is_computed(self, expression, seed):
        text, value = expression
        rng = np.random.default_rng(seed)
        table = pd.DataFrame(
            {
                "i8": rng.integers(-128, 128, 12).astype("int8"),
                "u8": rng.integers(0, 256, 12).astype("uint8"),
                "i64": rng.integers(-(10**6), 10**6, 12),
                "big": rng.integers(10**9, 10**12, 12),
                "f32": rng.standard_normal(12).astype("float32"),
                "f64": rng.standard_normal(12),
                "flag": rng.random(12) < 0.5,
            }
        )
        with np.errstate(all="ignore"):
            right = np.broadcast_to(value(table), 12)
        side = known_side(text, table, python=True)
        if not side.columns:
            return
        np.testing.assert_allclose(evaluate_outcome(side, table), right, rtol=1e-12)
        design, matrix = Design.learn(f"0 + {{{text}}}", table)
        np.testing.assert_allclose(matrix[:, 0], right, rtol=1e-12)
        if np.isfinite(right).all():
            np.testing.assert_array_equal(design.matrix(table, PredictionError), matrix)

    def test_truth_is_one(self):
        _, matrix = Design.learn("0 + I(flag + (x > 1)) + exp(flag)", TABLE)
        np.testing.assert_array_equal(matrix[:, 0], TABLE.flag.astype(int) + (TABLE.x > 1).astype(int))
        np.testing.assert_allclose(matrix[:, 1], np.exp(TABLE.flag.astype(float)), rtol=1e-15)


class TestLeftSide:
    @pytest.mark.parametrize(
        ("left", "right"),
        [
            ("y - x", TABLE.y - TABLE.x),
            ("(y - x)", TABLE.y - TABLE.x),
            ("y - 1", TABLE.y - 1),
            ("-y", -TABLE.y),
            ("-x^2", -(TABLE.x**2)),
            ("x**2 + 1", TABLE.x**2 + 1),
            ("2 * y / x", 2 * TABLE.y / TABLE.x),
            ("log(x) - log(x + 1)", np.log(TABLE.x / (TABLE.x + 1))),
            ("{y}", TABLE.y),
            ("I(x > 1)", (TABLE.x > 1).astype(float)),
            ("scale(y)", (TABLE.y - TABLE.y.mean()) / TABLE.y.std()),
            ("`y`", TABLE.y),
        ],
    )
    def test_is_one_expression(self, left, right):
        data = mtl.TaskData.from_table(TABLE, task="g", formula=f"{left} ~ z")
        np.testing.assert_allclose(data.y, right[data.row], rtol=1e-12)
        assert data.schema.outcome == left.strip("`")

    @pytest.mark.parametrize("left", ["C(k)", "poly(y, 2)", "arm", "y +", "y | x", "np.mean(y)", "y, x"])
    def test_or_is_refused(self, left):
        with pytest.raises(DataError):
            mtl.TaskData.from_table(TABLE, task="g", formula=f"{left} ~ z")

    def test_tildes_inside(self):
        assert split_formula("I(~flag) ~ {~flag}") == ("I(~flag)", "{~flag}")
        assert split_formula("`a ~ b` ~ x") == ("`a ~ b`", "x")
        assert split_formula("y + x") is None


class TestMissing:
    @given(st.data())
    def test_a_row_without_a_value_has_no_design(self, data):
        terms = [t for t in TERMS if "df=" not in t]
        formula = " + ".join(data.draw(st.lists(st.sampled_from(terms), min_size=1, max_size=3, unique=True)))
        table = TABLE.copy().astype({"flag": object, "k": object})
        for name in data.draw(st.lists(st.sampled_from(NAMES), max_size=2)):
            rows = data.draw(st.lists(st.integers(0, N - 1), min_size=1, max_size=6))
            table.loc[rows, name] = None
        design, matrix = Design.learn(formula, table)
        gone = table[list(design.reads)].isna().any(axis=1).to_numpy()
        np.testing.assert_array_equal(np.isnan(matrix).any(axis=1), gone)
        again, complete = Design.learn(formula, table[~gone])
        np.testing.assert_array_equal(matrix[~gone], complete)
        assert again == design
        if gone.any():
            with pytest.raises(PredictionError, match="missing"):
                design.matrix(table, PredictionError)

    @pytest.mark.parametrize(
        "formula", ["I(x > 1) ~ z", "{np.where(x > 1, 1, 0)} ~ z", "y ~ C(x > 1)", "y ~ I(x > 1)"]
    )
    def test_are_found_on_both_sides_and_dropped(self, formula):
        table = TABLE.assign(x=np.where(np.arange(N) % 7 == 0, np.nan, TABLE.x))
        with pytest.raises(DataError, match="column 'x': 9 values are NaN"):
            mtl.TaskData.from_table(table, task="g", formula=formula)
        data = mtl.TaskData.from_table(table, task="g", formula=formula, missing="drop")
        assert sorted(data.row) == [i for i in range(N) if i % 7]

    def test_rows_are_those_of_the_table_and_advice_is_new(self):
        x = np.where(np.arange(N) == 5, np.nan, np.where(np.arange(N) == 9, 0.0, TABLE.x))
        for formula in ("y ~ log(x)", "log(x) ~ z"):
            with pytest.raises(DataError, match=r"rows 9; tasks 'a'.*Correct them") as caught:
                mtl.TaskData.from_table(TABLE.assign(x=x), task="g", formula=formula, missing="drop")
            assert "missing='drop'" not in str(caught.value)


ODD_NAMES = ["C", "log", "scale", "np", "I", "center", "exp", "poly", "x", "y2", "class", "a.b", "a b", "1a"]
ODD_NAMES += [
    "Ölpreis",
    "été",
    "β",
    "年齢2x",
    "\u00b5g",
    "\u03bcg",
    "x:z",
    "log(x)",
    "it's",
    "levels",
    "contr",
]


class TestNames:
    @given(
        names=st.lists(st.sampled_from(ODD_NAMES), min_size=3, max_size=3, unique=True),
    )
    @settings(max_examples=20)
    def test_do_not_matter(self, names):
        right = "{0} + C({1}) + log({0}):{2} + scale({2}, ddof=1) + I({0} - {2}^2) + poly({2}, degree=2)"
        _, matrix = Design.learn(right.format("x", "k", "z"), TABLE)
        table = TABLE[["x", "k", "z"]].rename(columns=dict(zip(["x", "k", "z"], names, strict=True)))
        quoted = [f"`{n}`" for n in names]
        design, again = Design.learn(right.format(*quoted), table.assign(y=1.0))
        np.testing.assert_array_equal(again, matrix)
        assert set(design.reads) == set(names)
        same_again(design, table, again)
        if all(n.isidentifier() and n not in ("class",) for n in names):
            without, again = Design.learn(right.format(*names), table)
            assert without.columns == design.columns
            np.testing.assert_array_equal(again, matrix)

    def test_columns_that_are_not_read_shadow_nothing(self):
        right = "C(k) + log(x) + np.exp(z) + scale(z) + I(x * z) + center(x):z"
        others = {
            name: RNG.standard_normal(N) for name in ("C", "log", "np", "scale", "I", "center", "contr")
        }
        design, matrix = Design.learn(right, TABLE.assign(**others))
        plain, right = Design.learn(right, TABLE)
        assert design == plain
        np.testing.assert_array_equal(matrix, right)

    def test_of_one_spelling_in_two_forms(self):
        composed, parts = "\u00e9t\u00e9", "e\u0301te\u0301"
        design, _ = Design.learn(composed, TABLE.rename(columns={"x": parts}))
        assert design.reads == (parts,)

    def test_of_no_column(self):
        with pytest.raises(DataError) as caught:
            mtl.TaskData.from_table(TABLE, task="g", formula="log(yy) ~ C(kk) + nothing(x) + Ärger")
        where = [f.where for f in caught.value.findings]
        assert where == [
            "column 'yy'",
            "column 'kk'",
            "column 'Ärger'",
            "formula 'C(kk) + nothing(x) + Ärger'",
        ]

    @pytest.mark.parametrize(
        "formula",
        [
            "x + z",
            "x * arm",
            "0 + size:z",
            "arm:size + x",
            "(x + z + arm)**2",
            "size / x",
            "C(arm):log(x) + 1",
            "x - 1",
        ],
    )
    def test_plain_formulas_mean_what_they_mean_to_formulaic(self, formula):
        design, matrix = Design.learn(formula, TABLE)
        right = formulaic.model_matrix(formula, TABLE)
        assert list(design.columns) == list(right.columns)
        np.testing.assert_allclose(matrix, right.to_numpy(dtype=float))

    def test_a_column_of_the_design_can_be_taken_out(self):
        design, matrix = Design.learn("arm * size - `arm[T.r]:size[T.l]`", TABLE)
        whole, right = Design.learn("arm * size", TABLE)
        keep = [i for i, name in enumerate(whole.columns) if name != "arm[T.r]:size[T.l]"]
        assert design.columns == tuple(whole.columns[i] for i in keep)
        np.testing.assert_array_equal(matrix, right[:, keep])
        same_again(design, TABLE, matrix)
        with pytest.raises(DataError, match="takes out"):
            Design.learn("arm - `arm[T.x]`", TABLE)
        with pytest.raises(DataError, match="in backticks"):
            Design.learn("arm * size - arm[T.r]:size[T.l]", TABLE)

    def test_terms_are_named_however_they_are_spaced(self):
        data = mtl.TaskData.from_table(
            TABLE, task="g", formula="y ~ I(x^2) + C( k )", shared_features=["I(x**2)", "C(k)"]
        )
        assert data.shared_features == ("I(x ** 2)", "C(k)[T.2]", "C(k)[T.3]", "C(k)[T.4]")

    @pytest.mark.parametrize(
        ("right", "said"),
        [
            ("offset(log(x))", "offset="),
            ("factor(k)", r"C\(x\)"),
            (".", "Name the columns"),
            ("(1 | g)", "shared_features"),
            ("x ~ z", "second '~'"),
            ("log(arm)", "'arm' holds levels, for example"),
            ("C(arm, {'a': {'p': 1, 'q': -1}})", "cannot be evaluated"),
            ("log(x, 2)", "log has 1 argument"),
        ],
    )
    def test_of_other_languages(self, right, said):
        with pytest.raises(DataError, match=said):
            mtl.TaskData.from_table(TABLE, task="g", formula=f"y ~ {right}")

    def test_words_of_python_are_no_columns(self):
        for right in ("{x.map(lambda v: v + 1)}", "{[v + 1 for v in x]}", "{x if True else z}"):
            _, matrix = Design.learn(f"0 + {right}", TABLE)
            np.testing.assert_allclose(matrix[:, 0], TABLE.x + (1 if "v" in right else 0))
        _, inside = Design.learn("x %in% z + Q('arm')", TABLE)
        _, right = Design.learn("x %in% z + arm", TABLE)
        np.testing.assert_array_equal(inside, right)

    def test_a_power_of_one_term_is_that_term(self):
        with pytest.warns(DataWarning, match=r"Write I\(x\*\*2\)"):
            design, _ = Design.learn("x + x**2", TABLE)
        assert design.columns == ("Intercept", "x")

    def test_names_that_no_formula_can_hold(self):
        tick = TABLE.rename(columns={"x": "a`b", "y": "y`"})
        with pytest.raises(DataError, match="cannot hold"):
            mtl.TaskData.from_table(tick, task="g", outcome="y`", features=["a`b"])
        data = mtl.TaskData.from_table(tick, task="g", outcome="y`", features=["z"])
        np.testing.assert_array_equal(data.y, TABLE.y[data.row])

    def test_centered_columns_however_they_are_spaced(self):
        design, matrix = Design.learn("I(x^2) + z", TABLE, center=["I(x^2)"])
        assert design.center == (0.0, (TABLE.x**2).mean(), 0.0)
        np.testing.assert_allclose(matrix[:, 1], TABLE.x**2 - (TABLE.x**2).mean(), atol=1e-12)

    def test_keywords_of_calls_are_no_columns(self):
        table = TABLE.assign(degree=1.0, df=2.0)
        assert read_side("poly(x, degree=2) + bs(x, df=4)", table.columns).columns == ("x",)


class TestOddFactors:
    @pytest.mark.parametrize(
        ("column", "said"),
        [
            (["-", *map(str, range(59))], r"59 different numbers as text beside '-' \(1 rows\)"),
            (["1,234", "2,000", *map(str, range(58))], r"beside '1,234' \(1 rows\), '2,000' \(1 rows\)"),
            (["n/a", *np.tile(["1", "2", "3"], 20)[:59]], "3 different numbers as text beside 'n/a'"),
            (["1,234", *np.tile(["1", "2", "3"], 20)[:59]], r"3 different numbers as text beside '1,234'"),
            ([f"person {i}" for i in range(60)], "60 levels in 60 rows"),
            ([str(v) for v in RNG.standard_normal(60)], "60 different numbers as text"),
            (["a"] * 60, "'a' in every row"),
            (["nan", *np.tile(["a", "b", "c"], 20)[:59]], "missing values that became text"),
        ],
    )
    def test_are_findings_with_the_odd_entries(self, column, said):
        with pytest.raises(DataError, match=said):
            mtl.TaskData.from_table(TABLE.assign(t=column), task="g", formula="y ~ t")

    @pytest.mark.parametrize("term", ["C(z)", "C(x > 99)", "{arm.str.len().astype(str)}"])
    def test_computed_ones_too(self, term):
        with pytest.raises(DataError, match=r"60 levels|in every row"):
            Design.learn(term, TABLE)

    def test_what_is_said_to_be_a_factor_is_one(self):
        codes = pd.Categorical([*map(str, range(12))] * 5)
        design, _ = Design.learn("t", TABLE.assign(t=codes))
        assert len(design.columns) == 12
        likert, _ = Design.learn("t", TABLE.assign(t=np.tile(["1", "2", "3"], 20)))
        assert likert.columns == ("Intercept", "t[T.2]", "t[T.3]")

    def test_text_that_only_an_expression_reads_may_be_free(self):
        table = TABLE.assign(t=[f"person {i}" for i in range(N)])
        design, matrix = Design.learn("0 + {t.str.len() + x}", table)
        np.testing.assert_allclose(matrix[:, 0], table.t.str.len() + table.x)
        new = design.matrix(table.assign(t="a new one"), PredictionError)
        np.testing.assert_allclose(new[:, 0], 9 + table.x)

    @pytest.mark.parametrize("term", ["t", "C(t)", "I(t > 0)"])
    def test_whole_numbers_that_float64_cannot_tell_apart(self, term):
        with pytest.raises(DataError, match="column 't': holds whole numbers beyond"):
            Design.learn(term, TABLE.assign(t=10**18 + np.arange(N) % 3))
        unsigned = np.uint64(2**63) + (np.arange(N) % 3).astype("uint64")
        gaps = pd.array([None, *(10**18 + np.arange(N - 1) % 3)], dtype="Int64")
        for column in (unsigned, gaps, gaps.astype(object), [2**70 + i % 3 for i in range(N)]):
            with pytest.raises(DataError, match="column 't': holds whole numbers beyond"):
                mtl.TaskData.from_table(TABLE.assign(t=column), task="g", formula=f"y ~ {term}")
        stamps = TABLE.assign(t=10**18 + 1000 * (np.arange(N) % 3))
        assert len(Design.learn(term.replace("> 0", "/ 1"), stamps)[0].columns) == (
            3 if term == "C(t)" else 2
        )


PIECES = [
    "x",
    "z",
    "arm",
    "flag",
    "`a b`",
    "C(",
    "log(",
    "center(",
    "poly(",
    "np.",
    "1",
    "0",
    "'q'",
    "lambda v:",
]
PIECES += [*"+-*/:^(){}[],=><&|~%.!`'\"#@", "**", "==", " ", "%in%", ".mean()", "if", "T.q", "é"]


class TestWords:
    @pytest.mark.parametrize(
        ("formula", "word", "hint"),
        [
            ("y ~ ns(x, df=3)", "'ns('", "Functions: C, I, center"),
            ("foo(y) ~ x", "'foo('", "Functions: C, I, center"),
            ("y ~ as.factor(k)", "'as.factor'", "Write C(x)"),
            ("y ~ poly(x, 2, raw=TRUE)", "'TRUE'", "Write True"),
            ("y ~ x + offset(z)", "'offset'", "pass its name as `offset=`"),
        ],
    )
    def test_functions_that_there_are_not(self, formula, word, hint):
        with pytest.raises(DataError) as found:
            mtl.TaskData.from_table(TABLE, task="g", formula=formula)
        assert f"has {word}, which has no meaning here" in str(found.value)
        assert hint in str(found.value)
        assert "is not in the table" not in str(found.value)

    def test_a_column_with_a_method_is_a_column(self):
        with pytest.raises(DataError, match=r"column 'xx': is not in the table\. Did you mean 'x'"):
            mtl.TaskData.from_table(TABLE, task="g", formula="y ~ {xx.abs()}")

    def test_columns_may_have_the_names_of_constants(self):
        data = mtl.TaskData.from_table(TABLE.assign(TRUE=TABLE.z), task="g", formula="y ~ TRUE")
        assert data.features == ("Intercept", "TRUE")

    def test_two_classes_in_words(self):
        table = TABLE.assign(alive=np.where(TABLE.z > 0, "yes", "no"))
        with pytest.raises(DataError) as found:
            mtl.TaskData.from_table(table, task="g", formula="alive ~ x")
        written = re.search(r'formula "(.*) ~ \.\.\."', str(found.value))[1]
        data = mtl.TaskData.from_table(table, task="g", formula=f"{written} ~ x")
        assert set(data.y) == {0.0, 1.0}

    def test_values_where_a_name_is_asked_for(self):
        with pytest.raises(DataError, match="Put the values into the table") as found:
            mtl.TaskData.from_table(TABLE, task="g", formula="y ~ x", weights=np.ones(N))
        assert len(str(found.value)) < 300


@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join))
def test_any_text_is_a_formula_or_a_finding(text):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for formula in (f"{text} ~ x", f"y ~ {text}"):
            with contextlib.suppress(DataError):  # any other error fails
                mtl.TaskData.from_table(TABLE, task="g", formula=formula, allow_one_class=True)


def test_no_rows():
    design, matrix = Design.learn("C(k) * x + arm + {~flag} + bs(x, df=4)", TABLE)
    assert design.matrix(TABLE.iloc[:0], PredictionError).shape == (0, matrix.shape[1])


def test_evaluation_is_quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = TABLE.assign(x=np.where(np.arange(N) == 3, 0.0, TABLE.x))
        with pytest.raises(DataError, match="infinite"):
            mtl.TaskData.from_table(table, task="g", formula="y ~ log(x)")
