"""HTML that needs nothing else: a page, its tables and its pictures."""

import base64
import html
from collections.abc import Iterable, Sequence

from matplotlib.figure import Figure

from kd_lightning.reports import plots

STYLE = """
:root { color-scheme: light dark; --page: #fff; --text: #222; --quiet: #666; --line: #ddd; --strong: #999;
  --code: #f4f4f4; --problem: #a33; --finding: #d1603d; --verdict: #2a6fbb; --shadow: #0005; }
@media (prefers-color-scheme: dark) { :root { --page: #1b1b1b; --text: #ddd; --quiet: #a0a0a0; --line: #3a3a3a;
  --strong: #777; --code: #2b2b2b; --problem: #f08a80; --finding: #e58a6b; --verdict: #6fa8e6; --shadow: #fff5; }
  .pictures svg, .verdict img { filter: invert(.895) hue-rotate(180deg); }
  .pictures img { filter: brightness(.65); border-radius: 4px; } }
@media print { :root { color-scheme: light; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); max-width: 110rem;
  margin: 1.5rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid var(--line); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { border-bottom: 2px solid var(--strong); }
td, th { white-space: nowrap; } .long td { white-space: normal; max-width: 24rem; overflow-wrap: anywhere; }
.long td:first-child { white-space: nowrap; }
@media (max-width: 64rem) { table { font-size: .8rem; } th, td { padding: .2rem .35rem; }
  thead th { white-space: normal; vertical-align: bottom; } }
.note { color: var(--quiet); font-size: .85rem; padding-left: 1.2rem; }
.finding { border-left: 4px solid var(--finding); padding-left: .8rem; }
.verdict { border-left: 4px solid var(--verdict); padding-left: .8rem; } .verdict p { margin: .2rem 0; }
.problem { color: var(--problem); }
/* A shadow at the side where more of a table is hidden: covers of the page's colour move with the table. */
.scroll { overflow-x: auto; background:
  linear-gradient(to right, var(--page) 40%, transparent) left / 2.5rem 110% no-repeat local,
  linear-gradient(to left, var(--page) 40%, transparent) right / 2.5rem 110% no-repeat local,
  linear-gradient(to right, var(--shadow), transparent) left / 1rem 100% no-repeat scroll,
  linear-gradient(to left, var(--shadow), transparent) right / 1rem 100% no-repeat scroll; }
code { background: var(--code); padding: .1rem .3rem; }
.pictures { display: grid; gap: 1.2rem; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); }
.pictures.wide { grid-template-columns: repeat(auto-fit, minmax(min(32rem, 100%), 1fr)); }
figure { margin: 0; max-width: 40rem; } .wide figure { max-width: 60rem; }
figcaption { color: var(--quiet); font-size: .85rem; overflow-wrap: anywhere; }
.pictures svg, .pictures img { width: 100%; height: auto; } .verdict img { max-width: 100%; }
"""


def page(title: str, body: Iterable[str]) -> str:
    """A whole page, which forbids itself every request.

    Args:
        title: Its title and first heading.
        body: HTML of its parts.
    """
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width">'
        f'<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        f"style-src 'unsafe-inline'\">"
        f'<link rel="icon" href="data:,"><style>{STYLE}</style></head><body><h1>{html.escape(title)}</h1>'
        f"{''.join(body)}</body></html>\n"
    )


def heading(text: str) -> str:
    """A heading of a section."""
    return f"<h2>{html.escape(text)}</h2>"


def paragraph(text: str, kind: str | None = None) -> str:
    """A paragraph, of one of the classes of STYLE."""
    return f"<p{'' if kind is None else f' class={chr(34)}{kind}{chr(34)}'}>{html.escape(text)}</p>"


def items(texts: Iterable[str], kind: str) -> str:
    """A list, of one of the classes of STYLE."""
    return f'<ul class="{kind}">{"".join(f"<li>{html.escape(text)}</li>" for text in texts)}</ul>'


def table(header: Sequence[str], lines: Iterable[Sequence[str]], *, long: bool = False) -> str:
    """A table that scrolls where it is wider than the page; `long` texts are broken into lines."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>" for line in lines)
    return (
        f'<div class="scroll{" long" * long}"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def image(png: bytes, text: str) -> str:
    """A PNG that stands in the page itself; the text is what it shows."""
    return f'<img alt="{html.escape(text)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def figure(content: Figure | bytes, caption: str) -> str:
    """A picture with its caption: a figure to draw, or a PNG's bytes."""
    drawn = image(content, caption) if isinstance(content, bytes) else plots.as_svg(content)
    return f"<figure>{drawn}<figcaption>{html.escape(caption)}</figcaption></figure>"


def pictures(figures: Iterable[str], *, wide: bool = False) -> str:
    """Pictures side by side, as many as the page is wide enough for."""
    return f'<div class="pictures{" wide" * wide}">{"".join(figures)}</div>'
