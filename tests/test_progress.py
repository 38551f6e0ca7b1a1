"""A bar comes where work is long, where somebody sees it, and goes whatever happens."""

import numpy as np
import pytest
from rich.console import Console
from rich.progress import Progress

import bayes_mtl as mtl
from bayes_mtl import progress as module
from bayes_mtl.progress import progress
from bayes_mtl.summaries.refit import exact_rows


@pytest.fixture
def bars(monkeypatch):
    """Make every bar visible at once, and keep them."""
    made = []

    def new_bar():
        made.append(Progress(console=Console(force_terminal=True, quiet=True), transient=True))
        return made[-1]

    monkeypatch.setattr(module, "_new_bar", new_bar)
    monkeypatch.setattr(module, "PATIENCE", -1.0)
    return made


def test_steps_are_counted_and_inner_work_is_a_line_of_the_same_bar(bars):
    with progress("outer", 3) as outer:
        outer()
        (task,) = bars[0].tasks
        assert (task.description, task.completed, task.total) == ("outer", 1, 3)
        with progress("inner", 2) as inner:
            inner()
            assert [t.description for t in bars[0].tasks] == ["outer", "inner"]
        assert [t.description for t in bars[0].tasks] == ["outer"]
        outer()
        assert task.completed == 2
    assert len(bars) == 1
    assert not bars[0].live.is_started


def test_a_bar_ends_with_an_interrupt(bars):
    def work():
        with progress("work", 2) as done:
            done()
            assert bars[0].live.is_started
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert not bars[0].live.is_started
    with progress("later", 1) as done:  # a new one, not that of before
        done()
    assert len(bars) == 2


def test_nothing_is_shown_if_not_asked_for_or_if_it_is_short(bars, monkeypatch):
    with progress("outer", 2, show=False) as outer, progress("inner", 2) as inner:
        outer()
        inner()
    monkeypatch.setattr(module, "PATIENCE", 60.0)
    with progress("short", 1) as done:
        done()
    assert bars == []


def test_nobody_sees_a_bar_without_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", -1.0)
    with progress("work", 2) as done:
        done()
    assert capsys.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore::bayes_mtl.errors.ConvergenceWarning")
def test_refits_and_comparisons_show_how_many_are_done_unless_asked_not_to(bars, sleepstudy_fit):
    fits, n_rows = {"one": sleepstudy_fit, "same": sleepstudy_fit}, sleepstudy_fit["observed_data"]["y"].size
    k = np.where(np.arange(n_rows) < 3, 1.0, 0.0)
    few = {"draws": 4, "tune": 4, "chains": 1, "random_seed": 1}
    with progress("outer", 1) as outer:
        outer()
        lines = _lines_added_to(bars[0])
        exact_rows(sleepstudy_fit, np.zeros(n_rows), k, 0.7, 2, **few)
        mtl.compare(fits, max_refits=0)
        mtl.transfer_gain(sleepstudy_fit, max_refits=0)
        shown = dict(lines)
        exact_rows(sleepstudy_fit, np.zeros(n_rows), k, 0.7, 1, progressbar=False, **few)
        mtl.compare(fits, max_refits=0, progressbar=False)
        assert lines == shown
    assert shown["refits without some rows"] == 2
    assert shown["scores of fits"] == 2
    assert shown["ways to learn (together, alone, as one)"] == 3


def _lines_added_to(bar):
    """Keep the totals of the lines that are added to a bar, by their descriptions."""
    lines, add = {}, bar.add_task

    def add_task(what, total):
        assert what not in lines
        lines[what] = total
        return add(what, total=total)

    bar.add_task = add_task
    return lines
