"""A bar comes where work is long, where somebody sees it, and goes whatever happens."""

import pytest
from rich.console import Console
from rich.progress import Progress

from bayes_mtl import progress as module
from bayes_mtl.progress import progress


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
