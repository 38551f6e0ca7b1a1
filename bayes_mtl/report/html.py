"""Pieces of a page that needs nothing but itself: no scripts, no network, light and dark, printable."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import Any

import pandas as pd

_DPI = 110

STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1a1a1a; --paper: #fff; --quiet: #5b6066; --line: #d9dce0; --tint: #f3f5f7;
}
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --paper: #16181b; --quiet: #a0a6ad; --line: #363b41; --tint: #1f2327; }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2rem 1.2rem 4rem; max-width: 62rem;
  background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; overflow-wrap: anywhere;
}
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .3rem; }
h3 { font-size: 1.0rem; margin: 1.6rem 0 .4rem; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--line); }
p { max-width: 46rem; margin: .6rem 0; }
.quiet { color: var(--quiet); }
nav a { margin-right: 1rem; color: inherit; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums; margin: .8rem 0; }
th, td { padding: .25rem .8rem .25rem 0; text-align: right; border-bottom: 1px solid var(--line); }
th, td { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
pre {
  background: var(--tint); padding: .8rem 1rem;
  overflow-x: auto; font-size: .82rem; white-space: pre-wrap;
}
.equation { font: italic 1.02rem/1.7 Cambria, "STIX Two Math", serif; margin: .1rem 0 .1rem 1.2rem; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; padding: 6px; }
figcaption { color: var(--quiet); font-size: .85rem; max-width: 46rem; }
.note { border-left: 4px solid #0072b2; padding: .1rem 0 .1rem 1rem; }
.warn { border-left-color: #d55e00; }
@media print {
  body { max-width: none; padding: 0; font-size: 11pt; }
  nav { display: none; }
  figure, table { break-inside: avoid; }
}
"""


def page(title: str, sections: Sequence[tuple[str, str]], lead: str) -> str:
    """Return the whole document; sections are pairs of heading and body."""
    links = "".join(f'<a href="#s{i}">{escape(name)}</a>' for i, (name, _) in enumerate(sections, 1))
    body = "".join(
        f'<section id="s{i}"><h2>{escape(name)}</h2>{text}</section>'
        for i, (name, text) in enumerate(sections, 1)
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><h1>{escape(title)}</h1>{lead}<nav>{links}</nav>{body}</body></html>"
    )


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph of plain text."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def subheading(text: str) -> str:
    """Return a heading within a section."""
    return f"<h3>{escape(text)}</h3>"


def equations(lines: Sequence[str]) -> str:
    """Return one equation per line."""
    return "".join(f'<p class="equation">{escape(line)}</p>' for line in lines)


def code(text: str) -> str:
    """Return text as it is."""
    return f"<pre>{escape(text)}</pre>"


def table(frame: pd.DataFrame, *, index: bool = True) -> str:
    """Return a table of text, which may be scrolled if it is wide."""
    return f'<div class="table">{frame.to_html(index=index, border=0, justify="right", escape=True)}</div>'


def figure(drawn: Any, caption: str) -> str:
    """Return a matplotlib figure as a part of the page."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=_DPI, facecolor="white")
    return picture(buffer.getvalue(), caption)


def picture(png: bytes, caption: str) -> str:
    """Return a picture as a part of the page."""
    data = base64.b64encode(png).decode()
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
