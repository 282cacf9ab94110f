"""Video as seeds: each frame is told as what the seed of the one before does not say already.

Both ends hold a canvas, the latents of what the camera has seen, on the grid of the key frame. A
frame says by how many pixels the camera has moved and, for a box of cells, what the canvas has
wrong there: columns that came into view, and what has changed. The canvas itself is never
resampled, so nothing blurs however far the camera goes: a view between two cells is cut out of the
decoded picture.

Frames are counted, and the checksum of each runs over the canvas it was predicted from. So a
receiver that missed one says so until the next key frame, and never shows a frame on a wrong
canvas.

    1 byte   0 key frame, 1 camera moved and nothing else, 2 with a box
    2 bytes  number of the frame
    4 bytes  CRC over the canvas that it is predicted from, if any, and the packet
    2 bytes  pixels that the camera moved to the right, not for a key frame
    4 bytes  the box in cells of the view, if any: top, left, height, width
    rest     the progressive seed of the box, or of the whole key frame
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from megdt.codecs.progressive import (
    BITS_PER_PIXEL,
    HEADER_BYTES,
    ProgressiveSeedCodec,
    layout,
    load_tables,
    transform,
)
from megdt.errors import CodecError, MissedError
from megdt.models import FACTOR, LATENT_CHANNELS
from megdt.records import Delivery, Feature, Packet

FORMAT = 1
"""Counts up with every change of what a packet means."""

GRID_STEP = 1 / 64
"""Of the canvas, which has about unit variance; both ends round to it what the coder gives."""

KEY, MOVED, CHANGED = 0, 1, 2
"""Kinds of packets."""

KEY_EVERY = 32
"""Frames from one key frame to the next, unless one is asked for."""

REACH_PX = 64
"""How far the camera is looked for, either way."""

MAX_CELLS = 255
"""Along a side of the view, for one byte; 2040 pixels."""

_MARGIN = 4
"""Cells beyond the view that the networks see of it. More of them change nothing that counts."""

_KEPT = 32
"""Cells beyond the view, either way, that stay on the canvas for when the camera comes back."""

_STRIP = 6
"""Cells from which the receiver finds out how the picture would go on."""

_WORST, _SLACK = 3.0, 40.0
"""A cell is told anew where its mean square error is above so many times that of a frame that needs
no other, and so many more; pixels go to 255. Chosen by bits at equal perceptual distance on two
gardens; stricter ones spent more bits than they were worth."""

_HEAD, _MOTION, _BOX = struct.Struct(">BHI"), struct.Struct(">h"), struct.Struct(">BBBB")


class Models(Protocol):
    """The autoencoder, as a bundle has it."""

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """RGB [batch, height, width, 3] to latents [batch, 4, height / 8, width / 8]."""
        ...

    def decode(self, latents: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Latents [batch, 4, height, width] to RGB [batch, 8 * height, 8 * width, 3]."""
        ...


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """What a receiver knows after a frame.

    It is whole numbers, rounded alike at both ends. Should two machines round apart, the checksum
    of the next frame says so.

    Args:
        steps: Latents in GRID_STEP. [latent_channels, height, width]
        left: Column of the first of them; 0 is the first column of the key frame.
        camera_px: Left edge of the view, from the left edge of the key frame.
        number: Of the frame.
    """

    steps: NDArray[np.int16]
    left: int
    camera_px: int
    number: int

    @property
    def right(self) -> int:
        """Column after the last."""
        return int(self.left + self.steps.shape[2])

    @property
    def checksum(self) -> int:
        """Names it: alike where both ends hold the same."""
        place = f"{self.left} {self.camera_px} {self.number}".encode()
        return zlib.crc32(self.steps.astype("<i2").tobytes(), zlib.crc32(place))

    def cut(self, start: int, stop: int) -> NDArray[np.float32]:
        """Latents of these columns, as far as there are any. [latent_channels, height, columns]"""
        part = self.steps[:, :, max(0, start - self.left) : max(0, stop - self.left)]
        return part.astype(np.float32) * np.float32(GRID_STEP)


@dataclass
class _Sender:
    """What the sender remembers beyond the canvas: what the camera has seen of it."""

    canvas: Canvas
    seen: NDArray[np.uint8]
    """Pixels of the canvas' columns. [height_px, width_px, 3]"""
    error: float
    """Of the key frame, a cell: what each frame is brought down to."""
    since_key: int = 0


class VideoSeedCodec:
    """Carries the frames of a video, one feature after the other; each end has its own copy.

    Unlike the codecs of single features it remembers: frames are encoded, and decoded, in their
    order. A frame that would cost as much as a key frame, such as after a cut, is one.

    The camera moves sideways by whole pixels; what moves in between, or otherwise, is a change like
    any other. Frames are pictures at both ends, and the networks are part of the codec, because
    a view need not lie on the grid of the latents.

    Args:
        models: The autoencoder, the same at both ends.
        height_px: Of every frame, a multiple of 8.
        width_px: Likewise.
        key_bits: Budget of the seed of a key frame; the others get what holds its quality. A tenth
            of a bit a pixel when left out.
        key_every: Frames from one key frame to the next.
        reach_px: How far, either way, the sender looks for where the camera went.

    Raises:
        CodecError: If a number is out of its range.
    """

    remembers: ClassVar[bool] = True

    def __init__(
        self,
        models: Models,
        *,
        height_px: int = 256,
        width_px: int = 256,
        key_bits: int | None = None,
        key_every: int = KEY_EVERY,
        reach_px: int = REACH_PX,
    ) -> None:
        for name, side in (("height_px", height_px), ("width_px", width_px)):
            # One cell fewer than a byte counts: a view between cells has one more.
            if side % FACTOR or not 8 * FACTOR <= side <= (MAX_CELLS - 1) * FACTOR:
                raise CodecError(
                    f"{name} is {side}, frames have {8 * FACTOR} to {(MAX_CELLS - 1) * FACTOR} "
                    f"pixels a side in multiples of {FACTOR}; scale or crop them"
                )
        if key_every < 1:
            raise CodecError(
                f"key_every is {key_every}, a key frame comes every 1 or more frames; take 1 for "
                "frames that need no other"
            )
        if not 0 <= reach_px < width_px:
            raise CodecError(
                f"reach_px is {reach_px}, a camera is found again within 0 to {width_px - 1} "
                "pixels, where the view still overlaps; take less"
            )
        self.models = models
        self.height_px, self.width_px = height_px, width_px
        self.key_bits = int(BITS_PER_PIXEL * height_px * width_px) if key_bits is None else key_bits
        self.key_every, self.reach_px = key_every, reach_px
        self._rows, self._columns = height_px // FACTOR, width_px // FACTOR
        self._seed(self._rows, self._columns, self.key_bits)  # refuses a budget that is none
        self._sender: _Sender | None = None
        self._canvas: Canvas | None = None
        self._number = 0
        self._asked = False

    def __repr__(self) -> str:
        return (
            f"VideoSeedCodec(height_px={self.height_px}, width_px={self.width_px}, "
            f"key_bits={self.key_bits}, key_every={self.key_every}, reach_px={self.reach_px})"
        )

    @property
    def flops(self) -> float:
        """Floating point operations of the networks so far, where they count them."""
        return float(getattr(self.models, "flops", 0.0))

    @property
    def canvas(self) -> Canvas | None:
        """What the receiver holds; None before the first key frame."""
        return self._canvas

    @property
    def sent(self) -> Canvas | None:
        """What the sender takes the receiver to hold."""
        return None if self._sender is None else self._sender.canvas

    def ask_key(self) -> None:
        """Make the next frame that is sent a key frame: the other end has lost one."""
        self._asked = True

    def encode(self, feature: Feature, *, moved_px: int | None = None) -> Packet:
        """Encode the next frame.

        Args:
            feature: The picture. [height_px, width_px, 3]
            moved_px: How far the camera has moved to the right since the last frame; looked for
                when left out.

        Raises:
            CodecError: If it is not a picture of the codec's size, or the camera moved out of its
                own view.
        """
        image = self._check(feature.values)
        if moved_px is not None and abs(moved_px) >= self.width_px:
            raise CodecError(
                f"camera moved by {moved_px} pixels, a view is {self.width_px} wide; call ask_key() "
                "and leave moved_px out where nothing is left of the last frame"
            )
        sender = self._sender
        if self._asked or sender is None or sender.since_key + 1 >= self.key_every:
            return self._encode_key(image)
        if moved_px is None:
            moved_px = self._find(image, sender)
        packet = self._encode_change(image, moved_px, sender)
        return self._encode_key(image) if packet is None else packet

    def decode(self, delivery: Delivery) -> Feature:
        """The next frame, as a picture.

        Whatever is refused leaves what the receiver holds as it was.

        Raises:
            CodecError: If the packet is damaged or none of this codec's, or comes twice or too late.
            MissedError: If a frame before it was missed; then none but a key frame can follow.
        """
        canvas = self._read(delivery.payload)
        image = self._show(canvas)
        self._canvas = canvas
        return Feature(kind="frame", values=image)

    # The packet.

    def _write(self, kind: int, number: int, before: Canvas | None, body: bytes) -> Packet:
        crc = self._crc(kind, number, before, body)
        return Packet(payload=_HEAD.pack(kind, number, crc) + body)

    def _crc(self, kind: int, number: int, before: Canvas | None, body: bytes) -> int:
        settings = f"{FORMAT} {self.height_px} {self.width_px} {load_tables().checksum}"
        start = zlib.crc32(settings.encode(), before.checksum if before else 0)
        return zlib.crc32(struct.pack(">BH", kind, number) + body, start)

    def _read(self, payload: bytes) -> Canvas:
        """The canvas after a packet."""
        if len(payload) < _HEAD.size or payload[0] > CHANGED:
            raise CodecError(
                f"a packet of {len(payload)} bytes beginning {payload[:1].hex() or 'nowhere'} "
                f"arrived, a frame has at least {_HEAD.size} and begins 00, 01 or 02; both ends "
                "must follow the same plan"
            )
        kind, number, crc = _HEAD.unpack_from(payload)
        body = payload[_HEAD.size :]
        held = self._canvas
        # Half of all numbers lie behind.
        if held is not None and not 0 < (number - held.number) % 2**16 < 2**15:
            raise CodecError(
                f"frame {number} came after frame {held.number}; it is late or came twice, go on "
                "with the next"
            )
        if kind != KEY and (held is None or number != (held.number + 1) % 2**16):
            holds = "no key frame has come" if held is None else f"frame {held.number} came last"
            raise MissedError(
                f"frame {number} is told by what changed since frame {(number - 1) % 2**16}, here "
                f"{holds}; wait for the next key frame, or ask for it"
            )
        if crc != self._crc(kind, number, None if kind == KEY else held, body):
            raise CodecError(
                f"frame {number} has checksum {crc:08x}, which does not hold for what arrived and "
                "the frame before; it is damaged or of another video, wait for the next key frame"
            )
        if kind == KEY or held is None:
            return self._key_canvas(number, body)
        least = _MOTION.size + (kind == CHANGED) * _BOX.size
        if len(body) < least or (kind == MOVED and len(body) > least):
            raise CodecError(
                f"frame {number} has {len(body)} bytes for motion, box and seed, of kind {kind} it "
                f"has {least} or more; both ends must follow the same plan"
            )
        (moved,) = _MOTION.unpack_from(body)
        if kind == MOVED:
            return self._change(held, number, moved, (0, 0, 0, 0), b"")
        box = _BOX.unpack_from(body, _MOTION.size)
        return self._change(held, number, moved, box, body[_MOTION.size + _BOX.size :])

    # What both ends do.

    def _seed(self, rows: int, columns: int, bits: int) -> ProgressiveSeedCodec:
        return ProgressiveSeedCodec(shape=(LATENT_CHANNELS, rows, columns), budget_bits=bits)

    def _read_seed(self, rows: int, columns: int, payload: bytes) -> NDArray[np.float32]:
        """A seed that is all of its payload, so that its own checksum is held against it."""
        codec = self._seed(rows, columns, 8 * max(HEADER_BYTES, len(payload)))
        values: NDArray[np.float32] = codec.decode(Delivery(payload=payload)).values
        return values

    def _key_canvas(self, number: int, body: bytes) -> Canvas:
        latent = self._read_seed(self._rows, self._columns, body)
        return Canvas(steps=_steps(latent), left=0, camera_px=0, number=number)

    def _view(self, camera_px: int) -> tuple[int, int]:
        """The columns in view, from one to before the other."""
        return camera_px // FACTOR, -(-(camera_px + self.width_px) // FACTOR)

    def _predict(self, before: Canvas, camera_px: int) -> tuple[Canvas, NDArray[np.bool_]]:
        """The canvas moved under the camera, and which columns of the view nobody has seen."""
        first, last = self._view(camera_px)
        start, stop = max(before.left, first - _KEPT), min(before.right, last + _KEPT)
        if stop <= max(start, first) or start >= min(stop, last):
            raise CodecError(
                f"camera moved from {before.camera_px} to {camera_px} pixels, out of all that is "
                "held; both ends must follow the same plan"
            )
        kept = before.steps[:, :, start - before.left : stop - before.left]
        # What came into view goes on as the last column did.
        fill = (max(0, start - first), max(0, last - stop))
        steps = np.pad(kept, ((0, 0), (0, 0), fill), mode="edge")
        columns = np.arange(first, last)
        canvas = Canvas(
            steps=steps,
            left=start - fill[0],
            camera_px=camera_px,
            number=(before.number + 1) % 2**16,
        )
        return canvas, (columns < start) | (columns >= stop)

    def _change(
        self,
        before: Canvas,
        number: int,
        moved_px: int,
        box: tuple[int, int, int, int],
        payload: bytes,
    ) -> Canvas:
        canvas, _ = self._predict(before, before.camera_px + moved_px)
        if not payload:
            return canvas
        top, left, height, width = box
        first, last = self._view(canvas.camera_px)
        if not (height and width and top + height <= self._rows and left + width <= last - first):
            raise CodecError(
                f"frame {number} changes {height} x {width} cells at {top}, {left} of a view of "
                f"{self._rows} x {last - first}; both ends must follow the same plan"
            )
        change = self._read_seed(height, width, payload)
        return _add(canvas, change, top, first + left)

    def _show(self, canvas: Canvas) -> NDArray[np.uint8]:
        """The view. [height_px, width_px, 3]"""
        first, last = self._view(canvas.camera_px)
        start, stop = max(canvas.left, first - _MARGIN), min(canvas.right, last + _MARGIN)
        latent = canvas.cut(start, stop)
        left, right = _MARGIN - (first - start), _MARGIN - (stop - last)
        if left or right:
            latent = self._go_on(latent, left, right)
        image = self.models.decode(latent[None])[0]
        at = canvas.camera_px - FACTOR * (first - _MARGIN)
        return np.ascontiguousarray(image[:, at : at + self.width_px])

    def _go_on(self, latent: NDArray[np.float32], left: int, right: int) -> NDArray[np.float32]:
        """Latents with so many columns more, as of a picture whose last pixels go on.

        The encoder saw the frame so, and the decoder makes a border of its own where the latents
        end. The picture is not known yet: mirrored latents give a first one, that one better ones.
        """
        padded = np.pad(latent, ((0, 0), (0, 0), (left, right)), mode="symmetric")
        strip = min(_STRIP, latent.shape[2])
        if left:
            padded[:, :, :left] = self._again(padded[:, :, : left + strip], left, 0)
        if right:
            padded[:, :, -right:] = self._again(padded[:, :, -right - strip :], 0, right)
        return padded

    def _again(self, piece: NDArray[np.float32], left: int, right: int) -> NDArray[np.float32]:
        """The columns on the left or the right of a piece, encoded from its other ones gone on."""
        image = self.models.decode(np.ascontiguousarray(piece)[None])
        inner = image[:, :, FACTOR * left : image.shape[2] - FACTOR * right]
        pads = ((0, 0), (0, 0), (FACTOR * left, FACTOR * right), (0, 0))
        latent = self.models.encode(np.pad(inner, pads, mode="edge"))[0]
        beyond: NDArray[np.float32] = latent[:, :, :left] if left else latent[:, :, -right:]
        return beyond

    # What the sender does.

    def _check(self, values: Any) -> NDArray[np.uint8]:
        image = np.asarray(values)
        if image.dtype != np.uint8 or image.shape != (self.height_px, self.width_px, 3):
            raise CodecError(
                f"frame is {image.dtype} {image.shape}, this codec carries uint8 "
                f"{(self.height_px, self.width_px, 3)}; build it for the size of the video"
            )
        return image

    def _encode_key(self, image: NDArray[np.uint8]) -> Packet:
        latent = self._look(image, 0, None)
        packet = self._seed(self._rows, self._columns, self.key_bits).encode(
            Feature(kind="seed", values=latent)
        )
        canvas = self._key_canvas(self._number, packet.payload)
        error = weighted_error(latent - canvas.cut(0, self._columns)) / latent[0].size
        self._sender = _Sender(canvas=canvas, seen=image.copy(), error=error)
        self._number = (self._number + 1) % 2**16
        self._asked = False
        return self._write(KEY, canvas.number, None, packet.payload)

    def _look(
        self, image: NDArray[np.uint8], camera_px: int, sender: _Sender | None
    ) -> NDArray[np.float32]:
        """Latents of the columns in view, of a frame amid what was seen before."""
        first, last = self._view(camera_px)
        wide = self._surround(image, camera_px, sender, first - _MARGIN, last + _MARGIN)
        latents: NDArray[np.float32] = self.models.encode(wide[None])
        return latents[0, :, :, _MARGIN : _MARGIN + last - first]

    def _surround(
        self,
        image: NDArray[np.uint8],
        camera_px: int,
        sender: _Sender | None,
        start: int,
        stop: int,
    ) -> NDArray[np.uint8]:
        """The pixels of these columns: the frame, what was seen around it, and its ends gone on."""
        low, high, wide = camera_px, camera_px + self.width_px, image
        if sender is not None:
            left = FACTOR * sender.canvas.left
            if left < low:
                wide = np.concatenate((sender.seen[:, : low - left], wide), 1)
                low = left
            right = left + sender.seen.shape[1]
            if right > high:
                wide = np.concatenate((wide, sender.seen[:, high - right :]), 1)
                high = right
        pads = max(0, low - FACTOR * start), max(0, FACTOR * stop - high)
        wide = np.pad(wide, ((0, 0), pads, (0, 0)), mode="edge")
        low -= pads[0]
        return wide[:, FACTOR * start - low : FACTOR * stop - low]

    def _find(self, image: NDArray[np.uint8], sender: _Sender) -> int:
        """How far the camera moved: where the frame looks most like what was seen; 0 if in doubt."""
        grey = image[::4].astype(np.float32).mean(2)
        seen = sender.seen[::4].astype(np.float32).mean(2)
        at = sender.canvas.camera_px - FACTOR * sender.canvas.left
        best, found = np.inf, 0
        for moved in sorted(range(-self.reach_px, self.reach_px + 1), key=abs):
            start = at + moved
            low, high = max(0, -start), min(self.width_px, seen.shape[1] - start)
            if high - low < self.width_px // 4:
                continue
            there = seen[:, start + low : start + high]
            difference = float(np.mean(np.abs(grey[:, low:high] - there)))
            if difference < best:
                best, found = difference, moved
        return found

    def _encode_change(
        self, image: NDArray[np.uint8], moved_px: int, sender: _Sender
    ) -> Packet | None:
        """A frame as a change of the canvas, or None where a key frame is cheaper."""
        before = sender.canvas
        camera_px = before.camera_px + moved_px
        canvas, fresh = self._predict(before, camera_px)
        first, last = self._view(camera_px)
        wanted = self._look(image, camera_px, sender)
        rest = wanted - canvas.cut(first, last)
        wrong = self._wrong(image, canvas, wanted) | fresh
        kind, body = MOVED, _MOTION.pack(moved_px)
        if wrong.any():
            rows, columns = (np.flatnonzero(wrong.any(axis)) for axis in (1, 0))
            top, left = int(rows[0]), int(columns[0])
            height, width = int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left
            part = np.s_[:, top : top + height, left : left + width]
            payload = self._spend((rest * wrong)[part], sender.error * float(wrong.sum()))
            if payload is None:
                return None
            canvas = _add(canvas, self._read_seed(height, width, payload), top, first + left)
            kind, body = CHANGED, body + _BOX.pack(top, left, height, width) + payload
        packet = self._write(kind, canvas.number, before, body)
        seen = self._surround(image, camera_px, sender, canvas.left, canvas.right)
        self._sender = _Sender(
            canvas=canvas, seen=seen, error=sender.error, since_key=sender.since_key + 1
        )
        self._number = (canvas.number + 1) % 2**16
        return packet

    def _wrong(
        self, image: NDArray[np.uint8], canvas: Canvas, wanted: NDArray[np.float32]
    ) -> NDArray[np.bool_]:
        """Cells of the view that would look worse than in a frame that needs no other."""
        first, last = self._view(canvas.camera_px)
        codec = self._seed(self._rows, last - first, self.key_bits)
        packet = codec.encode(Feature(kind="seed", values=wanted))
        alone = self._read_seed(self._rows, last - first, packet.payload)
        start = first - canvas.left
        steps = canvas.steps.copy()
        steps[:, :, start : start + last - first] = _steps(alone)
        coded = Canvas(
            steps=steps, left=canvas.left, camera_px=canvas.camera_px, number=canvas.number
        )
        as_is, anew = (self._errors(image, c) for c in (canvas, coded))
        return as_is > _WORST * anew + _SLACK

    def _errors(self, image: NDArray[np.uint8], canvas: Canvas) -> NDArray[np.float64]:
        """Mean square of what is wrong about each cell of the view, with the cells around it."""
        first, last = self._view(canvas.camera_px)
        before = canvas.camera_px - FACTOR * first
        after = FACTOR * (last - first) - self.width_px - before
        counted = np.pad(np.ones(image.shape[:2]), ((0, 0), (before, after)))
        count = _around(_by_cells(counted))
        shown = self._show(canvas).astype(np.float64)
        errors = []
        for moved in (0, -1, 1):
            # Half a pixel either way is none: the camera may stand between two.
            there = shown if not moved else (shown + _beside(shown, moved)) / 2
            square = np.pad(((there - image) ** 2).mean(2), ((0, 0), (before, after)))
            errors.append(_around(_by_cells(square)) / count)
        least: NDArray[np.float64] = np.min(errors, 0)
        return least

    def _spend(self, rest: NDArray[np.float32], error: float) -> bytes | None:
        """The shortest seed of a rest that leaves no more error, or None where a key is shorter."""
        _, rows, columns = rest.shape
        most = self.key_bits // 8
        codec = self._seed(rows, columns, 8 * most)
        payload = codec.encode(Feature(kind="seed", values=rest)).payload
        low, high = HEADER_BYTES, len(payload)
        while low < high:
            middle = (low + high) // 2
            again = codec.decode(Delivery(payload=payload[:middle])).values
            if weighted_error(rest - again) <= error:
                high = middle
            else:
                low = middle + 1
        if low >= most:
            return None
        return self._seed(rows, columns, 8 * low).encode(Feature(kind="seed", values=rest)).payload


def weighted_error(rest: NDArray[np.float32]) -> float:
    """Sum of squares of what is left of latents, weighted by what the picture makes of it."""
    mixing, levels = load_tables().mixing, layout(*rest.shape[1:]).bands[:, 0]
    pairs = zip(levels, transform(rest), strict=True)
    return float(sum(np.sum(np.tensordot(mixing[n], band, 1) ** 2) for n, band in pairs))


def _steps(latent: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.clip(np.round(latent / GRID_STEP), -(2**15) + 1, 2**15 - 1).astype(np.int16)


def _add(canvas: Canvas, change: NDArray[np.float32], top: int, column: int) -> Canvas:
    """The canvas with a change on top."""
    _, height, width = change.shape
    steps = canvas.steps.astype(np.int64)
    at = column - canvas.left
    steps[:, top : top + height, at : at + width] += _steps(change)
    limit = 2**15 - 1
    return Canvas(
        steps=np.clip(steps, -limit, limit).astype(np.int16),
        left=canvas.left,
        camera_px=canvas.camera_px,
        number=canvas.number,
    )


def _beside(pixels: NDArray[np.float64], moved: int) -> NDArray[np.float64]:
    """The pixels one to the right, or to the left; the last of them stay."""
    there = np.roll(pixels, -moved, 1)
    end = -1 if moved > 0 else 0
    there[:, end] = pixels[:, end]
    return there


def _by_cells(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    height, width = pixels.shape
    cells = pixels.reshape(height // FACTOR, FACTOR, width // FACTOR, FACTOR)
    total: NDArray[np.float64] = cells.sum((1, 3))
    return total


def _around(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums over each cell and the eight around it."""
    height, width = cells.shape
    padded = np.pad(cells, 1)
    shifted = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    total: NDArray[np.float64] = np.sum(shifted, 0)
    return total
