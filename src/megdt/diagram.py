"""A mechanism drawn: its sides as lanes, its stages in order, what crosses as arrows between them.

Both drawings label a crossing with its codec; given the ledger of a run, with bits (channel uses,
where symbols carry it) and with what each stage took in simulated time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from megdt.mechanisms.stages import Edge, Mechanism, Stage
from megdt.records import Computation, Kind, Ledger, Side

_LANE = 48
"""Characters from one lane of the text to the next."""

_NARROW = 12
"""The same, where there are many."""


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A stage in its lane, or an arrow from one lane to another."""

    left: int
    right: int
    """The same lane for a stage; for an arrow, where it points to is `to`."""
    to: int | None
    label: str
    note: str


def _lanes(mechanism: Mechanism) -> dict[Side, int]:
    """UEs, then the ES: with one of each, what the user holds is on the left."""
    ues = [side for side in mechanism.sides if side.is_ue]
    lanes = [*ues, *(side for side in mechanism.sides if not side.is_ue)]
    return {side: lane for lane, side in enumerate(lanes)}


def _rows(mechanism: Mechanism, codecs: Mapping[Kind, str], ledger: Ledger | None) -> list[_Row]:
    lanes = _lanes(mechanism)
    rows = []
    for step in mechanism.steps:
        if isinstance(step, Stage):
            lane = lanes[step.side]
            rows.append(
                _Row(left=lane, right=lane, to=None, label=step.name, note=_took(step, ledger))
            )
            continue
        ends = lanes[step.source.side], lanes[step.target.side]
        rows.append(
            _Row(
                left=min(ends), right=max(ends), to=ends[1],
                label=f"{step.source.makes}, {codecs.get(step.source.makes, 'no codec')}",
                note=_sent(step, ledger),
            )
        )  # fmt: skip
    return rows


def _took(stage: Stage, ledger: Ledger | None) -> str:
    lines: Sequence[Computation] = () if ledger is None else ledger.computations
    for line in lines:
        if (line.stage, line.task) == (stage.name, "run"):
            return _time(line.seconds)
    return ""


def _sent(edge: Edge, ledger: Ledger | None) -> str:
    for crossing in () if ledger is None else ledger.crossings:
        if (crossing.source, crossing.to_side) == edge.key:
            amount = (
                f"{crossing.bits:,} bit" if crossing.bits else f"{crossing.channel_uses:,} uses"
            )
            if crossing.among > 1:
                amount += f" by {crossing.among}"
            if crossing.outcome != "delivered":
                return f"{amount}, {crossing.outcome}"
            return f"{amount}, {_time(crossing.end_s - crossing.start_s)}"
    return ""


def _time(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1000:.1f} ms" if seconds >= 1e-4 else "< 0.1 ms"


def as_text(mechanism: Mechanism, codecs: Mapping[Kind, str], ledger: Ledger | None = None) -> str:
    """The drawing in lines of text; at most 80 characters wide with two sides, or with four UEs and no ledger."""
    lanes = _lanes(mechanism)
    few = len(lanes) <= 2
    lane = _LANE if few else _NARROW
    lines = ["".join(side.ljust(lane) for side in lanes).rstrip()]
    for row in _rows(mechanism, codecs, ledger):
        start = lane * row.left
        if row.to is None:
            lines.append(" " * start + "  ".join(filter(None, (row.label, row.note))))
            continue
        length = lane * row.right - start - 2
        label = f" {': '.join(filter(None, (row.label, row.note)))} "
        line = label.center(length, "─") if few else "─" * length
        arrow = f"◀{line}" if row.to == row.left else f"{line}▶"
        # Narrow lanes leave no room in the arrow: what crosses stands right of all lanes.
        beside = "" if few else " " * (lane * (len(lanes) - 1) - start - length) + label
        lines.append((" " * start + arrow + beside).rstrip())
    return "\n".join(lines)


_WIDTH, _GAP, _ROW, _TOP = 150, 250, 46, 74
_STYLE = """
.t { font: 14px system-ui, sans-serif; fill: #1d2733 } .n { font-size: 12px; fill: #5b6875 }
.h { font-weight: 600; font-size: 15px } .lane { stroke: #c9d1d9; stroke-dasharray: 3 4 }
.b { fill: #eaf2fb; stroke: #3b7dc4 } .es { fill: #eef7ee; stroke: #4a9350 }
.a { stroke: #b35c1e; stroke-width: 1.6; marker-end: url(#tip) } .tip { fill: #b35c1e }
@media (prefers-color-scheme: dark) {
.paper { fill: #12181f } .t { fill: #e4e9ee } .n { fill: #9aa7b3 } .lane { stroke: #3a4652 }
.b { fill: #1b3048; stroke: #5b9be0 } .es { fill: #1c3320; stroke: #69b46f }
.a { stroke: #e08a4a } .tip { fill: #e08a4a } }
"""


def as_svg(mechanism: Mechanism, codecs: Mapping[Kind, str], ledger: Ledger | None = None) -> str:
    """The drawing as an SVG file, readable on white and on dark."""
    lanes, rows = _lanes(mechanism), _rows(mechanism, codecs, ledger)
    middle = [40 + _WIDTH // 2 + lane * (_WIDTH + _GAP) for lane in range(len(lanes))]
    width, height = middle[-1] + _WIDTH // 2 + 40, _TOP + 30 + _ROW * len(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img">',
        f"<title>{escape(mechanism.name)}</title><desc>{escape(mechanism.about)}</desc>",
        f"<style>{_STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" '
        'markerHeight="8" orient="auto"><path class="tip" d="M0 0 8 4 0 8z"/></marker></defs>',
        f'<rect class="paper" fill="#fff" width="{width}" height="{height}"/>',
    ]
    for side, lane in lanes.items():
        parts.append(_text(middle[lane], 36, side, "t h"))
        parts.append(
            f'<line class="lane" x1="{middle[lane]}" x2="{middle[lane]}" y1="48" '
            f'y2="{height - 20}"/>'
        )
    on_es = {lane for side, lane in lanes.items() if not side.is_ue}
    for number, row in enumerate(rows):
        at = _TOP + _ROW * number
        if row.to is None:
            parts += _box(middle[row.left], at, row, "es" if row.left in on_es else "b")
        else:
            back = row.to == row.left
            # From the edge of one lane's boxes to that of the other's.
            ends = middle[row.left] + _WIDTH // 2 + 8, middle[row.right] - _WIDTH // 2 - 8
            start, end = reversed(ends) if back else ends
            parts.append(f'<line class="a" x1="{start}" x2="{end}" y1="{at}" y2="{at}"/>')
            centre = sum(ends) // 2
            parts.append(_text(centre, at - 6, row.label, "t"))
            parts.append(_text(centre, at + 15, row.note, "t n"))
    return "\n".join([*filter(None, parts), "</svg>\n"])


def _box(middle: int, at: int, row: _Row, kind: str) -> list[str]:
    box = (
        f'<rect class="{kind}" x="{middle - _WIDTH // 2}" y="{at - 17}" width="{_WIDTH}" '
        'height="36" rx="6"/>'
    )
    if not row.note:
        return [box, _text(middle, at + 6, row.label, "t")]
    return [box, _text(middle, at - 1, row.label, "t"), _text(middle, at + 14, row.note, "t n")]


def _text(x: int, y: int, text: str, kind: str) -> str:
    if not text:
        return ""
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="middle">{escape(text)}</text>'
