"""Markdown tables of what was measured in several rounds: medians, and how far the rounds lie apart."""

from statistics import median


def markdown(head, rows):
    """A table whose first column is text and whose others are numbers, to the right."""
    lines = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(3, *(len(line[at]) for line in lines)) for at in range(len(head))]

    def padded(line):
        numbers = (text.rjust(width) for text, width in zip(line[1:], widths[1:]))
        return "| " + " | ".join([line[0].ljust(widths[0]), *numbers]) + " |"

    ruler = [":" + "-" * (widths[0] + 1), *("-" * (width + 1) + ":" for width in widths[1:])]
    return "\n".join([padded(lines[0]), "|" + "|".join(ruler) + "|", *map(padded, lines[1:])])


def whole(value):
    """A number without decimals, thousands apart."""
    return f"{value:,.0f}"


def ratio(value):
    """A ratio with two decimals."""
    return f"{value:.2f}"


def percent(value):
    """A part of one as percent."""
    return f"{100 * value:.1f} %"


def span(seconds):
    """A time in the unit that fits it."""
    for unit, scale in (("s", 1), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def middle(values, form):
    """The median; a dash where there is nothing."""
    return form(median(values)) if values else "-"


def spread(values, form):
    """The least and the most; a dash where there is nothing."""
    return f"{form(min(values))} to {form(max(values))}" if values else "-"


def both(values, form):
    """The median, with the least and the most in parentheses."""
    return f"{middle(values, form)} ({spread(values, form)})" if values else "-"
