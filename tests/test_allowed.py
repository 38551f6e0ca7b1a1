"""A formula computes, and does nothing else: not where it is given, and not where it comes out of a file."""

from __future__ import annotations

import builtins
import json

import numpy as np
import pytest

import bayes_mtl as mtl
from bayes_mtl.data.allowed import BUILTINS, NotAllowedError
from bayes_mtl.data.design import Design
from bayes_mtl.data.expressions import Expression
from bayes_mtl.errors import DataError, FindingsError, PredictionError
from tests.test_bad_input import TABLE

ATTACKS = [
    "{x.to_csv('FILE')}",
    "{x.apply('to_csv', args=('FILE',))}",
    "{x.pipe(lambda v: v.to_pickle('FILE'))}",
    "{np.save('FILE', x)}",
    "{np.load('FILE')}",
    "{x.values.tofile('FILE')}",
    "{x.values.dump('FILE')}",
    "{open('FILE', 'w')}",
    "{__import__('os').system('touch FILE')}",
    "{eval('open(chr(70))')}",
    "{getattr(x, 'to_csv')('FILE')}",
    "{[c for c in ().__class__.__base__.__subclasses__()][0]}",
    "{x.__class__}",
    "{np.exp.__class__}",
    "{np.lib.npyio.DataSource('FILE')}",
    "{np.ctypeslib.ctypes}",
    "{[np][0].save('FILE', x)}",
    "{(lambda m: m.save('FILE', x))(np)}",
    "{x.agg(['to_csv'])}",
    "{(lambda f: f.gi_frame.f_globals)((v for v in x))}",
    "{'{0.__class__}'.format(x)}",
    "{f'{x}'}",
    "{(here := x)}",
    "{np.frompyfunc(lambda v: v, 1, 1)}",
    "{contr.mro()}",
    "{__builtins__['open']('FILE', 'w')}",
    "I(np.savetxt('FILE', x))",
    "log(x, out=x.to_pickle('FILE'))",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_but_arithmetic_is_evaluated(attack, tmp_path):
    file = tmp_path / "touched"
    term = attack.replace("FILE", str(file))
    for formula in (f"y ~ {term}", f"{term} ~ x"):
        with pytest.raises(DataError, match=r"a formula may not|no meaning here|cannot be|not in the table"):
            mtl.TaskData.from_table(TABLE, task="task", formula=formula)
    # Also where the reader of formulas is passed by: the code itself is not made.
    with pytest.raises((NotAllowedError, NameError, SyntaxError)):
        Expression(term.strip("{}"))({"x": TABLE.x}, {})
    assert not file.exists()


@pytest.mark.parametrize("attack", [a for a in ATTACKS if "x" in a])
def test_nor_out_of_a_file(attack, tmp_path):
    design, _ = Design.learn("I(x + 1)", TABLE)
    file = tmp_path / "touched"
    term = attack.replace("FILE", str(file))
    text = json.dumps(design.to_dict()).replace("I(x + 1)", json.dumps(term)[1:-1])
    with pytest.raises(FindingsError):
        Design.from_dict(json.loads(text)).matrix(TABLE, PredictionError)
    assert not file.exists()


def test_what_is_refused_is_named_with_what_to_do():
    with pytest.raises(DataError, match=r"uses \.to_csv, np\.save, which a formula may not\. Compute"):
        mtl.TaskData.from_table(TABLE, task="task", formula="y ~ {x.to_csv() + np.save('f', x)}")


@pytest.mark.parametrize("name", sorted(set(dir(builtins)) - set(BUILTINS) - {"None", "True", "False"}))
def test_no_builtin_but_those_that_compute(name):
    with pytest.raises((NameError, NotAllowedError)):
        Expression(name)({}, {})


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("{np.where(x > 0, np.log1p(abs(x)), -x**2)}", lambda x: np.where(x > 0, np.log1p(abs(x)), -(x**2))),
        ("{x.clip(-1, 1).round(2)}", lambda x: np.round(np.clip(x, -1, 1), 2)),
        ("{x.map(lambda v: max(v, 0.5) if v < 1 else sum([v]))}", lambda x: np.maximum(x, 0.5)),
        ("{[2 * v for v in x] + 0 * x}", lambda x: 2 * x),
        ("{x.gt(0) & ~x.isna()}", lambda x: x > 0),
        ("I(np.select([x < 0, x >= 0], [1, 2]) // 1 % 2)", lambda x: np.where(x < 0, 1.0, 0.0)),
        ("{x.astype(np.float64).mask(x > 1, 1.0)}", lambda x: np.minimum(x, 1)),
        ("{np.interp(x, [-3, 0, 3], [0, 1, 0])}", lambda x: np.interp(x, [-3, 0, 3], [0, 1, 0])),
    ],
)  # fmt: skip
def test_what_computes_may_be_used(text, meaning):
    data = mtl.TaskData.from_table(TABLE, task="task", formula=f"y ~ 0 + {text}")
    np.testing.assert_allclose(data.X[:, -1], meaning(TABLE.x.to_numpy()), rtol=1e-12)
