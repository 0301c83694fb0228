"""Pages for a browser: one HTML file, no script, nothing from outside, readable in light, in dark and on paper."""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --soft: #59636e; --line: #d1d9e0; --card: #f6f8fa }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --paper: #0d1117; --soft: #9aa4af; --line: #30363d; --card: #161b22 }
}
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem; color: var(--ink); background: var(--paper);
  font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem } h2 { margin-top: 2.5rem; padding-top: 1rem; border-top: 1px solid var(--line) }
h2, h3, h4 { font-size: 1.15rem; margin-bottom: .5rem } h4 { font-size: 1rem } p, ul { max-width: 50rem }
table { border-collapse: collapse } th, td { padding: .2rem .9rem .2rem 0; text-align: left }
td + td, th + th { text-align: right } thead { border-bottom: 1px solid var(--line) }
.row { display: flex; flex-wrap: wrap; gap: 1rem } .levels { gap: 0 2.5rem }
figure { margin: 0; padding: .6rem; width: 16rem; background: var(--card); border-radius: 6px }
figure.photo { width: 24rem; max-width: 100% } img { display: block; width: 100%; height: auto }
figcaption, .soft { color: var(--soft); font-size: .85rem } figcaption b { color: var(--ink) }
.scale { display: flex; gap: .4rem; margin: .3rem 0; font-variant-numeric: tabular-nums }
.scale span:nth-child(2) { flex: 1; border-radius: 3px }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: 2px; vertical-align: -.05em }
"""


def document(title: str, lines: Iterable[str], style: str = "") -> str:
    """Return a page of its own around lines of HTML; `title` is plain text, `style` is added to `STYLE`."""
    title, body = escape(title), "\n".join(lines)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{STYLE}{style}</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def data_uri(image: bytes, kind: str = "png") -> str:
    """Return an encoded picture as the address of an image."""
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"
