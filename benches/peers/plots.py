"""Draws what benches/peers/run has measured: bars as SVG, one file for each figure. Must not know servers.

A bar is the median, the line across its end goes from the lowest to the highest round. The colours are readable on white and on dark
pages, and the figure stands beside each bar, so nothing is told by colour alone.
"""

import html
import statistics

WIDTH, LABEL, VALUE, ROW, TOP = 680, 130, 60, 26, 40
OURS, OTHERS, SPREAD, INK = "#2f7fc1", "#9a9a9a", "#d08020", "#777777"


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def bars(title, found):
    """The SVG of one figure; `found`: the rounds of each server by its name."""
    most = max(max(values) for values in found.values())
    scale = (WIDTH - LABEL - VALUE) / max(most, 1e-9)
    height = TOP + ROW * len(found)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{html.escape(title)}"'
        f' font-family="sans-serif" font-size="13" fill="{INK}">',
        f'<text x="0" y="18" font-size="15">{html.escape(title)}</text>',
    ]
    for row, (name, values) in enumerate(found.items()):
        y = TOP + row * ROW
        middle = max(statistics.median(values), 0)
        low, high = (LABEL + max(value, 0) * scale for value in (min(values), max(values)))
        colour = OURS if name.startswith("Carillon") else OTHERS
        lines += [
            f'<text x="{LABEL - 8}" y="{y + 14}" text-anchor="end">{html.escape(name)}</text>',
            f'<rect x="{LABEL}" y="{y + 1}" width="{middle * scale:.1f}" height="18" fill="{colour}"/>',
            f'<path d="M{low:.1f} {y + 10}H{high:.1f}" stroke="{SPREAD}" stroke-width="2"/>',
            f'<text x="{max(high, LABEL) + 6:.1f}" y="{y + 14}">{number(middle)}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


def draw(folder, figures):
    """Writes one file for each figure; `figures`: its title by the file's name, and the rounds of each server."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (title, found) in figures.items():
        (folder / f"{name}.svg").write_text(bars(title, found))
