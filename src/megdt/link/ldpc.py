"""The LDPC code of 5G NR: both base graphs, encoder, and a layered offset min-sum decoder.

References:
    3GPP TS 38.212, sections 5.2.2 (lifting size), 5.3.2 (code), 7.2.2 (base graph).
    Chen, Dholakia, Eleftheriou, Fossorier and Hu, "Reduced-complexity decoding of LDPC codes",
    IEEE Trans. Commun. 53(8), 2005 (offset min-sum).
    Hocevar, "A reduced complexity decoder architecture via layered decoding of LDPC codes",
    IEEE SiPS 2004.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from megdt.errors import LinkError

BaseGraph = Literal[1, 2]

LIFTING_SETS = (
    (2, 4, 8, 16, 32, 64, 128, 256),
    (3, 6, 12, 24, 48, 96, 192, 384),
    (5, 10, 20, 40, 80, 160, 320),
    (7, 14, 28, 56, 112, 224),
    (9, 18, 36, 72, 144, 288),
    (11, 22, 44, 88, 176, 352),
    (13, 26, 52, 104, 208),
    (15, 30, 60, 120, 240),
)
"""Table 5.3.2-1."""
LIFTING_SIZES = tuple(sorted(size for sizes in LIFTING_SETS for size in sizes))

_SYSTEMATIC = {1: 22, 2: 10}
_COLUMNS = {1: 68, 2: 52}

MAX_ITERATIONS = 30
OFFSET = 0.5
"""What min-sum is taken to overestimate each message by; of 0.2 to 0.65 the best at all rates."""
_CLIP = np.float32(1e4)


class Decoded(NamedTuple):
    """What a decoder makes of some blocks."""

    bits: NDArray[np.uint8]
    """Systematic bits. [blocks, information_bits]"""
    converged: NDArray[np.bool_]
    """Whether all checks hold that were used. [blocks]"""
    iterations: NDArray[np.int64]
    """[blocks]"""


@dataclass(frozen=True, kw_only=True)
class LdpcCode:
    """One lifted code.

    Args:
        base_graph: 1 (rate 1/3 and up, large blocks) or 2 (rate 1/5 and up, small ones).
        lifting_size: Z of table 5.3.2-1.

    Raises:
        LinkError: If there is no such code.
    """

    base_graph: BaseGraph
    lifting_size: int

    def __post_init__(self) -> None:
        if self.base_graph not in (1, 2):
            raise LinkError(f"base_graph is {self.base_graph}, TS 38.212 has 1 and 2; choose one")
        if self.lifting_size not in LIFTING_SIZES:
            raise LinkError(
                f"lifting_size is {self.lifting_size}, table 5.3.2-1 of TS 38.212 has "
                f"{', '.join(map(str, LIFTING_SIZES))}; choose one of these"
            )

    @property
    def information_bits(self) -> int:
        """22 Z or 10 Z, filler bits included."""
        return _SYSTEMATIC[self.base_graph] * self.lifting_size

    @property
    def codeword_bits(self) -> int:
        """68 Z or 52 Z; the first 2 Z are never sent."""
        return _COLUMNS[self.base_graph] * self.lifting_size

    def parity_checks(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and columns of the ones in the parity check matrix. [ones], [ones]"""
        graph, size = _lifted(self), self.lifting_size
        place = np.arange(size)
        row_of_edge = np.repeat(np.arange(graph.starts.size - 1), np.diff(graph.starts))
        rows = row_of_edge[:, None] * size + place
        columns = graph.columns[:, None] * size + (place + graph.shifts[:, None]) % size
        return rows.ravel(), columns.ravel()

    def encode(self, information: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Append parity bits.

        Args:
            information: Bits. [blocks, information_bits]

        Returns:
            Code words, systematic bits first. [blocks, codeword_bits]

        Raises:
            LinkError: If the shape is another one.
        """
        from megdt.link import _ldpc_kernels

        self._check(information, self.information_bits, "information")
        graph, size = _lifted(self), self.lifting_size
        words = np.zeros((information.shape[0], _COLUMNS[self.base_graph], size), np.uint8)
        systematic = _SYSTEMATIC[self.base_graph]
        words[:, :systematic] = information.reshape(-1, systematic, size)
        _ldpc_kernels.encode(
            words, graph.starts, graph.columns, graph.shifts, systematic, graph.core
        )
        return words.reshape(-1, self.codeword_bits)

    def decode(self, llrs: NDArray[np.float32], *, max_iterations: int = MAX_ITERATIONS) -> Decoded:
        """Find the most likely words, or come near them.

        Args:
            llrs: log P(0) / P(1) of every bit of the code word; 0 for one that was not received,
                something large for a filler bit. [blocks, codeword_bits]
            max_iterations: Each goes once through all checks; a block stops when all of them hold.

        Raises:
            LinkError: If the shape is another one, or a number is not finite.
        """
        from megdt.link import _ldpc_kernels

        self._check(llrs, self.codeword_bits, "llrs")
        if not np.isfinite(llrs).all():
            raise LinkError("llrs are not all finite; check the noise power they were made with")
        graph, size = _lifted(self), self.lifting_size
        # A copy, which the decoder works on; bounded, so that sums stay exact.
        posterior = np.clip(llrs, -_CLIP, _CLIP, dtype=np.float32)
        posterior = posterior.reshape(-1, _COLUMNS[self.base_graph], size)
        bits = np.empty((llrs.shape[0], _SYSTEMATIC[self.base_graph], size), np.uint8)
        iterations = np.empty(llrs.shape[0], np.int64)
        _ldpc_kernels.decode(
            posterior,
            graph.starts,
            graph.columns,
            graph.shifts,
            OFFSET,
            max_iterations,
            _SYSTEMATIC[self.base_graph],
            bits,
            iterations,
        )
        found = bits.reshape(-1, self.information_bits)
        return Decoded(found, iterations > 0, np.abs(iterations))

    def _check(self, values: NDArray[Any], width: int, name: str) -> None:
        if values.ndim != 2 or values.shape[1] != width:
            raise LinkError(
                f"{name} has shape {values.shape}, base graph {self.base_graph} at lifting size "
                f"{self.lifting_size} takes [blocks, {width}]; build the code for this size"
            )


class _Lifted(NamedTuple):
    """A base graph by rows: edges of row r are starts[r] to starts[r + 1]."""

    starts: NDArray[np.int64]
    columns: NDArray[np.int64]
    shifts: NDArray[np.int64]
    core: NDArray[np.int64]


@cache
def _base_graph(base_graph: int) -> list[tuple[int, int, tuple[int, ...]]]:
    """Entries: row, column, shift for each lifting set."""
    path = Path(__file__).parent / "base_graphs.csv"
    lines = path.read_text(encoding="ascii").splitlines()[2:]
    rows = [tuple(map(int, row)) for row in csv.reader(lines)]
    return sorted((row[1], row[2], row[3:]) for row in rows if row[0] == base_graph)


@cache
def _lifted(code: LdpcCode) -> _Lifted:
    size = code.lifting_size
    number = next(i for i, sizes in enumerate(LIFTING_SETS) if size in sizes)
    entries = [(row, column, s[number] % size) for row, column, s in _base_graph(code.base_graph)]
    rows = np.array([row for row, _, _ in entries])
    degrees = np.bincount(rows)
    return _Lifted(
        starts=np.concatenate(([0], np.cumsum(degrees))),
        columns=np.array([column for _, column, _ in entries]),
        shifts=np.array([shift for _, _, shift in entries]),
        core=_core(entries, _SYSTEMATIC[code.base_graph]),
    )


def _core(entries: list[tuple[int, int, int]], first: int) -> NDArray[np.int64]:
    """How the four core parity columns follow from each other; see the kernel."""
    parity: dict[int, dict[int, int]] = {row: {} for row in range(4)}
    for row, column, shift in entries:
        if row < 4 and column >= first:
            parity[row][column] = shift
    # In the sum of all four rows the first column is left with one shift, the others with none.
    shifts = [known[first] for known in parity.values() if first in known]
    (left,) = {shift for shift in shifts if shifts.count(shift) % 2}
    steps, solved, waiting = [(left, first)], {first}, set(parity)
    while len(steps) < 4:
        row, target = next(
            (row, missing.pop())
            for row in sorted(waiting)
            if len(missing := set(parity[row]) - solved) == 1
        )
        steps.append((row, target))
        solved.add(target)
        waiting.remove(row)
    return np.array(steps)


def choose_base_graph(payload_bits: int, code_rate: float) -> BaseGraph:
    """Base graph of a transport block (section 7.2.2)."""
    small = payload_bits <= 292 or (payload_bits <= 3824 and code_rate <= 0.67)
    return 2 if small or code_rate <= 0.25 else 1


def choose_lifting_size(base_graph: BaseGraph, *, payload_bits: int, block_bits: int) -> int:
    """Smallest lifting size that holds a block (section 5.2.2).

    Args:
        base_graph: 1 or 2.
        payload_bits: Of the transport block with its CRC.
        block_bits: Of one code block with its CRC.

    Raises:
        LinkError: If the block is larger than the largest code.
    """
    columns = 22
    if base_graph == 2:
        columns = 10 if payload_bits > 640 else 9 if payload_bits > 560 else 8
        columns = 6 if payload_bits <= 192 else columns
    for size in LIFTING_SIZES:
        if columns * size >= block_bits:
            return size
    raise LinkError(
        f"a code block has {block_bits} bits, base graph {base_graph} holds {columns * 384}; "
        "segment it"
    )
