"""Small self-contained HTML pages: no script, no network, readable in a dark room."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

_STYLE = """
:root{color-scheme:light dark;--good:#1a7f37;--bad:#b3261e;--open:#9a6700;--line:#8884}
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}td,th{padding:.3rem .6rem;text-align:left;
border-bottom:1px solid var(--line)}.n{text-align:right;font-variant-numeric:tabular-nums}
.good{color:var(--good)}.bad{color:var(--bad)}.open{color:var(--open)}
.verdict{font-size:1.2rem;padding:.6rem 1rem;border-left:.3rem solid currentColor}
svg{display:block;max-width:42rem}.bar{fill:#57f8}.over{fill:var(--bad)}small{opacity:.7}
"""

_SHADES = ("#5757ff", "#d9822b", "#1a7f37", "#b3261e", "#8a63d2")
"""Of curves that share a plot."""


class Said(NamedTuple):
    """A cell of a table in the colour of its mood: ``good``, ``bad``, ``open`` or none."""

    text: str
    mood: str


def page(title: str, *parts: str) -> str:
    """Return a whole page; ``parts`` are HTML made by the functions below."""
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title>"
        f'<meta name=viewport content="width=device-width"><style>{_STYLE}</style>'
        f"<h1>{escape(title)}</h1>{''.join(parts)}</html>"
    )


def verdict(text: str, mood: str) -> str:
    """Return a large line; ``mood`` is ``good``, ``bad`` or ``open``."""
    return f'<p class="verdict {mood}">{escape(text)}</p>'


def section(title: str, *parts: str) -> str:
    """Return a titled part of a page."""
    return f"<h2>{escape(title)}</h2>{''.join(parts)}"


def paragraph(text: str) -> str:
    """Return a paragraph."""
    return f"<p>{escape(text)}</p>"


def link(text: str, address: str) -> str:
    """Return a paragraph that leads to another page."""
    return f'<p><a href="{escape(address)}">{escape(text)}</a></p>'


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; numbers are right-aligned, floats shown with three decimals."""
    lines = list(rows)
    sides = [" class=n" if lines and _is_number(value) else "" for value in (lines or [header])[0]]
    head = "".join(
        f"<th{side}>{escape(name)}</th>" for side, name in zip(sides, header, strict=True)
    )
    body = "".join(f"<tr>{''.join(map(_cell, line))}</tr>" for line in lines)
    return f"<table><tr>{head}</tr>{body}</table>"


def interval_plot(rows: Sequence[tuple[str, float, float, float]], limit: float) -> str:
    """Return estimates with their intervals around zero as SVG.

    Args:
        rows: ``(name, low, estimate, high)``.
        limit: the axis runs from ``-limit`` to ``limit``.
    """
    width, height, left = 640, 26 * len(rows) + 24, 180

    def x(value: float) -> float:
        clipped = max(-limit, min(limit, value))
        return left + (clipped + limit) / (2 * limit) * (width - left - 30)

    marks = [
        f'<line x1="{x(0):.1f}" x2="{x(0):.1f}" y1="0" y2="{height - 20}" '
        'stroke="currentColor" stroke-dasharray="3"/>'
    ]
    for index, (name, low, estimate, high) in enumerate(rows):
        y = 26 * index + 16
        marks.append(
            f'<text x="0" y="{y + 4}" fill="currentColor" font-size="13">{escape(name)}</text>'
            f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y}" y2="{y}" '
            f'stroke="currentColor" stroke-width="2"/>'
            f'<circle cx="{x(estimate):.1f}" cy="{y}" r="4" fill="currentColor"/>'
        )
    for value in (-limit, 0.0, limit):
        marks.append(
            f'<text x="{x(value):.1f}" y="{height - 4}" fill="currentColor" font-size="11" '
            f'text-anchor="middle">{value:+.2f}</text>'
        )
    return _svg(width, height, marks)


def bar_plot(rows: Sequence[tuple[str, float]], threshold: float) -> str:
    """Return horizontal bars from 0 to 1; those over ``threshold`` stand out."""
    width, left = 640, 180
    scale = width - left - 60
    marks = []
    for index, (name, value) in enumerate(rows):
        y = 22 * index
        shade = "over" if value >= threshold else "bar"
        marks.append(
            f'<text x="0" y="{y + 15}" fill="currentColor" font-size="13">{escape(name)}</text>'
            f'<rect class="{shade}" x="{left}" y="{y + 3}" height="15" '
            f'width="{max(0.5, value * scale):.1f}"/>'
            f'<text x="{left + value * scale + 6:.1f}" y="{y + 15}" fill="currentColor" '
            f'font-size="12">{value:.2f}</text>'
        )
    at = left + threshold * scale
    marks.append(
        f'<line x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{22 * len(rows)}" '
        'stroke="currentColor" stroke-dasharray="3"/>'
    )
    return _svg(width, 22 * len(rows) + 4, marks)


def curve_plot(curves: Mapping[str, Sequence[float]], across: str = "epoch") -> str:
    """Return values by epoch as lines, one for each name; all share both axes."""
    width, height, left, bottom = 640, 220, 60, 30
    values = [value for curve in curves.values() for value in curve]
    low, high = min(values), max(values)
    margin = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    low, high = low - margin, high + margin
    epochs = max(len(curve) for curve in curves.values())

    def at(index: int, value: float) -> str:
        x = left + (width - left - 130) * (index / max(1, epochs - 1))
        y = (height - bottom) * (1 - (value - low) / (high - low))
        return f"{x:.1f},{y:.1f}"

    marks = [
        f'<line x1="{left}" x2="{left}" y1="0" y2="{height - bottom}" stroke="currentColor"/>',
        f'<line x1="{left}" x2="{width - 130}" y1="{height - bottom}" y2="{height - bottom}" '
        'stroke="currentColor"/>',
        _label(left - 6, 12, f"{high:.3g}", "end"),
        _label(left - 6, height - bottom, f"{low:.3g}", "end"),
        _label(left, height - 8, f"{across} 1", "middle"),
    ]
    if epochs > 1:
        marks.append(_label(width - 130, height - 8, str(epochs), "middle"))
    for index, (name, curve) in enumerate(curves.items()):
        dash = "" if index == 0 else ' stroke-dasharray="6 4"'
        points = " ".join(at(number, value) for number, value in enumerate(curve))
        marks.append(
            f'<polyline points="{points}" fill="none" stroke="currentColor" '
            f'stroke-width="2"{dash}/>'
        )
        marks += [
            f'<circle cx="{x}" cy="{y}" r="3" fill="currentColor"/>'
            for x, y in (point.split(",") for point in points.split())
        ]
        x, y = points.split()[-1].split(",")
        marks.append(_label(float(x) + 8, float(y) + 4 + 14 * index, name, "start"))
    return _svg(width, height, marks)


def stream_plot(values: Sequence[float], threshold: float, alarms: Sequence[int]) -> str:
    """Return a statistic over time as a line, its threshold, and where it raised alarms.

    Args:
        values: one for each row, or for every so many.
        threshold: above which an alarm is raised.
        alarms: places in ``values``.
    """
    width, height, left, bottom = 640, 180, 60, 30
    floor, high = height - bottom, max([threshold, *values]) * 1.1 or 1.0

    def across(place: float) -> float:
        return left + (width - left - 20) * place / max(1, len(values) - 1)

    def up(value: float) -> float:
        return floor * (1 - value / high)

    points = " ".join(f"{across(at):.1f},{up(value):.1f}" for at, value in enumerate(values))
    level = f"{up(threshold):.1f}"
    marks = [
        f'<line x1="{left}" x2="{left}" y1="0" y2="{floor}" stroke="currentColor"/>',
        f'<line x1="{left}" x2="{width - 20}" y1="{floor}" y2="{floor}" stroke="currentColor"/>',
        f'<line x1="{left}" x2="{width - 20}" y1="{level}" y2="{level}" stroke="currentColor" '
        'stroke-dasharray="6 4"/>',
        f'<polyline points="{points}" fill="none" stroke="#57f" stroke-width="1.5"/>',
        _label(left - 6, up(threshold) + 4, f"{threshold:g}", "end"),
        _label(left - 6, floor, "0", "end"),
    ]
    for alarm in alarms:
        x = f"{across(alarm):.1f}"
        marks.append(
            f'<line class="alarm" x1="{x}" x2="{x}" y1="0" y2="{floor}" stroke="var(--bad)"/>'
        )
    return _svg(width, height, marks)


def share_plot(rows: Sequence[tuple[str, float, float]], names: tuple[str, str]) -> str:
    """Return shares of two sides by bin or category, side by side, as SVG.

    Args:
        rows: ``(bin, share of the one side, share of the other)``.
        names: of the sides.
    """
    width, left, step = 640, 180, 30
    most = max((share for _, *shares in rows for share in shares), default=0.0) or 1.0
    scale = (width - left - 60) / most
    marks = [
        f'<rect x="{left}" y="2" width="12" height="12" fill="{_SHADES[0]}" opacity="0.5"/>',
        _label(left + 18, 13, names[0], "start"),
        f'<rect x="{left + 180}" y="2" width="12" height="12" fill="{_SHADES[1]}"/>',
        _label(left + 198, 13, names[1], "start"),
    ]
    for index, (name, *shares) in enumerate(rows):
        y = 24 + step * index
        marks.append(_label(left - 8, y + 16, name, "end"))
        for side, share in enumerate(shares):
            opacity = (0.5, 1)[side]
            marks.append(
                f'<rect x="{left}" y="{y + 11 * side}" width="{max(0.5, share * scale):.1f}" '
                f'height="10" fill="{_SHADES[side]}" opacity="{opacity}"/>'
            )
        marks.append(_label(left + max(shares) * scale + 6, y + 16, f"{shares[1]:.0%}", "start"))
    return _svg(width, 28 + step * len(rows), marks)


def scatter_plot(points: Sequence[tuple[str, float, float]], across: str, up: str) -> str:
    """Return named points ``(name, x, y)`` as SVG; the axes carry what they count."""
    width, height, left, bottom = 640, 320, 60, 40
    low, high = min(y for _, _, y in points), max(y for _, _, y in points)
    margin = (high - low) * 0.1 or 0.01
    low, high, far = low - margin, high + margin, max(x for _, x, _ in points) * 1.05
    floor = height - bottom

    def right(x: float) -> float:
        return left + (width - left - 20) * x / far

    marks = [
        f'<line x1="{left}" x2="{left}" y1="0" y2="{floor}" stroke="currentColor"/>',
        f'<line x1="{left}" x2="{width - 20}" y1="{floor}" y2="{floor}" stroke="currentColor"/>',
        _label(left - 6, 12, f"{high:.3f}", "end"),
        _label(left - 6, floor, f"{low:.3f}", "end"),
        _label(left + 6, 12, up, "start"),
        _label(left, height - 22, "0", "middle"),
        _label(width - 20, height - 22, f"{far:.0f}", "end"),
        _label((left + width) / 2, height - 6, across, "middle"),
    ]
    for name, x, y in points:
        level = floor * (1 - (y - low) / (high - low))
        leans = "end" if right(x) > width * 0.7 else "start"
        shift = -8 if leans == "end" else 8
        marks.append(f'<circle cx="{right(x):.1f}" cy="{level:.1f}" r="4" fill="currentColor"/>')
        marks.append(_label(right(x) + shift, level + 4, name, leans))
    return _svg(width, height, marks)


def square_plot(curves: Mapping[str, Sequence[tuple[float, float]]], across: str, up: str) -> str:
    """Return curves of points ``(x, y)`` from 0 to 1, beside the diagonal, as SVG."""
    side, left, bottom, width = 300, 60, 40, 640

    def at(x: float, y: float) -> tuple[float, float]:
        return left + side * x, side * (1 - y) + 10

    corners = [at(0, 0), at(1, 0), at(0, 1), at(1, 1)]
    (x0, y0), (x1, _), (_, y1), _ = corners
    marks = [
        f'<rect x="{x0}" y="{y1}" width="{side}" height="{side}" fill="none" '
        'stroke="currentColor"/>',
        f'<line x1="{x0}" y1="{y0}" x2="{x1}" y2="{y1}" stroke="currentColor" '
        'stroke-dasharray="2" opacity="0.5"/>',
        _label(x0 - 6, y1 + 4, "1", "end"),
        _label(x0 - 6, y0, "0", "end"),
        _label(x1, y0 + 16, "1", "middle"),
        _label((x0 + x1) / 2, y0 + 30, across, "middle"),
        _label(x0 + 6, y1 + 16, up, "start"),
    ]
    for number, (name, points) in enumerate(curves.items()):
        shade = _SHADES[number % len(_SHADES)]
        dash = ' stroke-dasharray="6 4"' if number // len(_SHADES) else ""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in points))
        marks.append(
            f'<polyline points="{path}" fill="none" stroke="{shade}" stroke-width="2"{dash}/>'
        )
        y = 26 + 20 * number
        marks.append(
            f'<line x1="{x1 + 20}" x2="{x1 + 44}" y1="{y}" y2="{y}" stroke="{shade}" '
            f'stroke-width="2"{dash}/>'
        )
        marks.append(_label(x1 + 50, y + 4, name, "start"))
    return _svg(width, max(side + bottom + 10, 26 + 20 * len(curves)), marks)


def marked_words(words: Sequence[tuple[str, float]]) -> str:
    """Return words shaded by their weights: for the answer, or against it."""
    most = max((abs(weight) for _, weight in words), default=0.0) or 1.0
    spans = []
    for word, weight in words:
        shade = "87,87,255" if weight > 0 else "179,38,30"
        title = f"{weight:+.3f}"
        spans.append(
            f'<span title="{title}" style="background:rgba({shade},'
            f'{0.6 * abs(weight) / most:.2f})">{escape(word)}</span>'
        )
    return f"<p>{' '.join(spans)}</p>"


def picture(png: str, tiles: Sequence[Sequence[float]] = ()) -> str:
    """Return an image, and beside it a grid of the weights of its parts.

    Args:
        png: base64 of a PNG.
        tiles: weights by row, or none.
    """
    image = f'<img alt="" src="data:image/png;base64,{escape(png)}" width="96">'
    if not tiles:
        return image
    most = max(abs(weight) for row in tiles for weight in row) or 1.0
    size = 96 / len(tiles)
    cells = [
        f'<rect x="{size * x:.0f}" y="{size * y:.0f}" width="{size:.0f}" height="{size:.0f}" '
        f'fill="{"#5757ff" if weight > 0 else "#b3261e"}" '
        f'opacity="{0.8 * abs(weight) / most:.2f}"><title>{weight:+.3f}</title></rect>'
        for y, row in enumerate(tiles)
        for x, weight in enumerate(row)
    ]
    grid = f'<svg viewBox="0 0 96 96" style="display:inline;width:96px">{"".join(cells)}</svg>'
    return f"{image} {grid}"


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="currentColor" font-size="12" '
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )


def _svg(width: int, height: int, marks: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img">{"".join(marks)}</svg>'


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: object) -> str:
    if isinstance(value, Said):
        return f'<td class="{value.mood}">{escape(value.text)}</td>'
    if not _is_number(value):
        return f"<td>{escape(str(value))}</td>"
    shown = f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
    return f'<td class="n">{shown}</td>'
