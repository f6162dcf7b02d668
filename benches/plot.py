"""A plot of recall against queries per second as SVG, written by hand: no library, the same bytes for the same figures."""

import math
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 860, 560
LEFT, RIGHT, TOP, BOTTOM = 78, 24, 92, 132  # margins around the plot area
COLOURS = {"ivflsh": "#c2410c", "hnsw": "#1d4ed8", "ivfflat": "#0f766e", "faiss": "#6b7280"}
DASHES = {"faiss": "6 4"}
FLOOR = 0.80  # recalls below are left out


@dataclass
class Curve:
    system: str
    legend: str
    points: list  # (recall, queries per second), by rising recall
    default: tuple | None = None  # where the default settings are


def svg(title, curves, targets):
    curves = [Curve(c.system, c.legend, [p for p in c.points if p[0] >= FLOOR], c.default) for c in curves]
    rates = [rate for c in curves for _, rate in c.points]
    rates += [c.default[1] for c in curves if c.default]
    if not rates:
        rates = [1, 10]
    low, high = _round(min(rates) / 1.15, math.floor), _round(max(rates) * 1.15, math.ceil)

    def x(recall):
        return LEFT + (recall - FLOOR) / (1 - FLOOR) * (WIDTH - LEFT - RIGHT)

    def y(rate):
        return HEIGHT - BOTTOM - math.log(rate / low) / math.log(high / low) * (HEIGHT - TOP - BOTTOM)

    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
           'font-family="Helvetica, Arial, DejaVu Sans, sans-serif" font-size="13" fill="#1f2937" role="img">',
           f"<title>{escape(title)}</title>", f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
           f'<text x="{LEFT}" y="34" font-size="18" font-weight="bold">{escape(title)}</text>',
           f'<text x="{LEFT}" y="56" fill="#4b5563">Higher and further right is better. Legend: time to build the index, its '
           'size.</text>']

    for tick in _ticks(low, high):
        labelled = str(tick)[0] in "125"
        out.append(_line(LEFT, y(tick), right, y(tick), "#e5e7eb" if labelled else "#f3f4f6"))
        if labelled:
            out.append(f'<text x="{LEFT - 8}" y="{y(tick) + 4.5:.1f}" text-anchor="end">{tick:,}</text>')
    for step in range(round((1 - FLOOR) * 100) + 1):
        recall = FLOOR + step / 100
        labelled = step % 5 == 0 or step > 15
        out.append(_line(x(recall), bottom, x(recall), bottom + (6 if labelled else 3), "#6b7280"))
        if labelled:
            out.append(_line(x(recall), TOP, x(recall), bottom, "#e5e7eb"))
            out.append(f'<text x="{x(recall):.1f}" y="{bottom + 21}" text-anchor="middle">{recall:.2f}</text>')
    for target in targets:
        out.append(_line(x(target), TOP, x(target), bottom, "#9ca3af", dash="3 3"))
    out.append(f'<rect x="{LEFT}" y="{TOP}" width="{right - LEFT}" height="{bottom - TOP}" fill="none" stroke="#6b7280"/>')
    out.append(f'<text x="{(LEFT + right) / 2:.0f}" y="{bottom + 44}" text-anchor="middle">recall@10</text>')
    out.append(f'<text transform="translate(20 {(TOP + bottom) / 2:.0f}) rotate(-90)" text-anchor="middle">queries per second'
               '</text>')

    for curve in curves:
        colour = COLOURS[curve.system]
        spots = [(x(recall), y(rate)) for recall, rate in curve.points]
        if len(spots) > 1:
            path = " ".join(f"{px:.1f},{py:.1f}" for px, py in spots)
            out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.2" stroke-linejoin="round"'
                       + (f' stroke-dasharray="{DASHES[curve.system]}"' if curve.system in DASHES else "") + "/>")
        out += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.4" fill="{colour}"/>' for px, py in spots]
        if curve.default and curve.default[0] >= FLOOR:
            px, py = x(curve.default[0]), y(curve.default[1])
            out.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="7" fill="none" stroke="{colour}" stroke-width="2"/>')
            out.append(f'<text x="{px:.1f}" y="{py + 22:.1f}" text-anchor="middle" fill="{colour}" font-weight="bold" '
                       'stroke="#ffffff" stroke-width="4" paint-order="stroke">default settings</text>')

    for i, curve in enumerate(curves):
        px, py = LEFT + (i % 2) * (right - LEFT) / 2, HEIGHT - 52 + (i // 2) * 24
        dash = f' stroke-dasharray="{DASHES[curve.system]}"' if curve.system in DASHES else ""
        colour = COLOURS[curve.system]
        out.append(f'<line x1="{px:.0f}" y1="{py}" x2="{px + 34:.0f}" y2="{py}" stroke="{colour}" stroke-width="2.2"{dash}/>')
        out.append(f'<circle cx="{px + 17:.0f}" cy="{py}" r="3.4" fill="{colour}"/>')
        out.append(f'<text x="{px + 42:.0f}" y="{py + 4.5}">{escape(curve.legend)}</text>')
    return "\n".join(out + ["</svg>"]) + "\n"


def _line(x1, y1, x2, y2, colour, dash=None):
    return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"'
            + (f' stroke-dasharray="{dash}"' if dash else "") + "/>")


def _round(value, towards):
    """To one digit, up or down."""
    scale = 10 ** math.floor(math.log10(value))
    return towards(value / scale) * scale


def _ticks(low, high):
    scale = 10 ** math.floor(math.log10(low))
    ticks = []
    while scale <= high:
        ticks += [round(digit * scale) for digit in range(1, 10) if low <= digit * scale <= high and digit * scale >= 1]
        scale *= 10
    return ticks
