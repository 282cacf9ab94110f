"""How the garden looks: sky, hills, meadow, flowers and weather, painted with Skia.

Everything is drawn in metres of the picture plane: x to the right along the meadow, y downwards
from the top edge of the view, one view being `VIEW_EXTENT_M` wide and high. Nothing here decides
what stands where; `garden.py` does, and hands over finished entities.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from megdt.errors import MissingExtraError

try:
    import skia
except ImportError as error:
    raise MissingExtraError(
        f"the garden is drawn with skia-python ({error}); pip install 'megdt[sim]', and on Debian "
        "apt-get install libegl1 libgl1"
    ) from None

from megdt.worlds.scene import HORIZON_M, VIEW_EXTENT_M, Conditions, Entity

# Flower colours: shade, body, light. The body is what a person would call the colour.
PALETTE: dict[str, tuple[int, int, int]] = {
    "white": (0xFFC3CCDC, 0xFFF1F3F8, 0xFFFFFFFF),
    "yellow": (0xFFD9A400, 0xFFFAD41E, 0xFFFFEE7E),
    "orange": (0xFFC24E06, 0xFFF5821F, 0xFFFFB45E),
    "red": (0xFF8E0F1B, 0xFFDB2230, 0xFFF4604F),
    "pink": (0xFFC94F8B, 0xFFF48BBB, 0xFFFFC3DD),
    "purple": (0xFF53247F, 0xFF8E44C4, 0xFFBE86E6),
    "blue": (0xFF173F9C, 0xFF2F6FE4, 0xFF7FB0FA),
}
_WITHERED = 0xFF8A6A3C

_SKIES: dict[str, tuple[int, int, int]] = {  # zenith, middle, horizon
    "clear": (0xFF3E8FE0, 0xFF86C1F2, 0xFFD6ECFA),
    "cloudy": (0xFF8C98A6, 0xFFAEB7C0, 0xFFCFD4D8),
    "sunset": (0xFF5A3F86, 0xFFE06A5E, 0xFFFFC873),
    "night": (0xFF0A1230, 0xFF18254F, 0xFF36457A),
}
# What the light of each sky does to everything under it: a gain for red, green and blue.
_LIGHT: dict[str, tuple[float, float, float]] = {
    "clear": (1.0, 1.0, 1.0),
    "cloudy": (0.86, 0.88, 0.90),
    "sunset": (1.0, 0.91, 0.84),
    "night": (0.62, 0.66, 0.82),
}


def mix(first: int, second: int, share: float) -> int:
    """Blend two ARGB colours; share 0 gives the first, 1 the second."""
    channels = (
        round(((first >> s) & 255) * (1 - share) + ((second >> s) & 255) * share)
        for s in (24, 16, 8, 0)
    )
    a, r, g, b = channels
    return (a << 24) | (r << 16) | (g << 8) | b


def open_canvas(width_m: float, height_px: int) -> tuple[skia.Surface, skia.Canvas]:
    """A surface of one view's height, and its canvas, which is measured in metres."""
    scale = height_px / VIEW_EXTENT_M
    surface = skia.Surface(round(width_m * scale), height_px)
    canvas = surface.getCanvas()
    canvas.scale(scale, scale)
    return surface, canvas


def read_pixels(surface: skia.Surface) -> NDArray[np.uint8]:
    """What was painted. [height, width, 3]"""
    rgba = surface.toarray(colorType=skia.kRGBA_8888_ColorType)
    return np.ascontiguousarray(rgba[:, :, :3])


def paint_view(
    canvas: skia.Canvas,
    conditions: Conditions,
    entities: Sequence[Entity],
    *,
    left_m: float,
    width_m: float,
) -> None:
    """Paint one stretch of the garden.

    Args:
        canvas: Already scaled so that one unit is one metre, its origin at the top left.
        conditions: Sky and weather over the whole garden.
        entities: Flowers, any order; those outside the stretch cost little.
        left_m: Garden coordinate of the left edge, metres.
        width_m: Width of the stretch, metres.
    """
    canvas.save()
    canvas.translate(-left_m, 0)
    span = (left_m - 0.5, left_m + width_m + 0.5)
    _paint_sky(canvas, conditions, span)
    r, g, b = _LIGHT[conditions.sky]
    gains = [r, 0, 0, 0, 0, 0, g, 0, 0, 0, 0, 0, b, 0, 0, 0, 0, 0, 1, 0]
    canvas.saveLayer(None, skia.Paint(ColorFilter=skia.ColorFilters.Matrix(gains)))
    _paint_land(canvas, conditions, span)
    for entity in sorted(entities, key=lambda e: e.nearness):
        paint_entity(canvas, entity)
    canvas.restore()
    _paint_weather(canvas, conditions, span)
    canvas.restore()


def paint_heads(canvas: skia.Canvas, entities: Sequence[Entity], *, left_m: float) -> None:
    """Paint the flowers' heads alone, opaque white, for the flower mask."""
    canvas.save()
    canvas.translate(-left_m, 0)
    white = skia.ColorFilters.Blend(skia.ColorWHITE, skia.BlendMode.kSrcIn)
    canvas.saveLayer(None, skia.Paint(ColorFilter=white))
    for entity in sorted(entities, key=lambda e: e.nearness):
        _paint_head(canvas, entity)
    canvas.restore()
    canvas.restore()


def _gradient(
    top: tuple[float, float], bottom: tuple[float, float], colours: Sequence[int]
) -> skia.Shader:
    return skia.GradientShader.MakeLinear([skia.Point(*top), skia.Point(*bottom)], list(colours))


def _paint_sky(canvas: skia.Canvas, conditions: Conditions, span: tuple[float, float]) -> None:
    left, right = span
    colours = _SKIES[conditions.sky]
    paint = skia.Paint(Shader=_gradient((0, 0), (0, HORIZON_M), colours), Dither=True)
    canvas.drawRect(skia.Rect.MakeLTRB(left, -0.1, right, HORIZON_M + 0.6), paint)
    if conditions.sky == "night":
        _stars(canvas, conditions.cloud_seed, span)
        _disc(canvas, conditions.light_x_m, 0.55, 0.2, 0xFFF3F1DC, glow=0x40E8ECFF)
    elif conditions.sky == "sunset":
        _disc(canvas, conditions.light_x_m, HORIZON_M - 0.28, 0.30, 0xFFFFF0B8, glow=0x90FFD27A)
    elif conditions.sky == "clear":
        _disc(canvas, conditions.light_x_m, 0.5, 0.22, 0xFFFFF8D6, glow=0x80FFF6C4)
    rng = np.random.default_rng((conditions.cloud_seed, 1))
    tones = {"clear": 0xE8FFFFFF, "cloudy": 0xB0E4E8EC, "sunset": 0x88FFB9A0, "night": 0x284A5A90}
    spacing = 1.1 if conditions.sky == "cloudy" else 3.1
    for x in np.arange(0.0, right + 3, spacing):
        _cloud(
            canvas, x + rng.uniform(0, spacing), rng.uniform(0.3, 0.95), tones[conditions.sky], rng
        )


def _disc(
    canvas: skia.Canvas, x: float, y: float, radius: float, colour: int, *, glow: int
) -> None:
    halo = skia.GradientShader.MakeRadial(skia.Point(x, y), radius * 4, [glow, glow & 0xFFFFFF])
    canvas.drawCircle(x, y, radius * 4, skia.Paint(Shader=halo))
    canvas.drawCircle(x, y, radius, skia.Paint(Color=colour, AntiAlias=True))


def _stars(canvas: skia.Canvas, cloud_seed: int, span: tuple[float, float]) -> None:
    for metre in range(math.floor(span[0]), math.ceil(span[1])):
        rng = np.random.default_rng((cloud_seed, 2, metre + 1000))
        for _ in range(6):
            at = (metre + rng.uniform(0, 1), rng.uniform(0.02, HORIZON_M - 0.25))
            paint = skia.Paint(Color=mix(0xFF60709C, 0xFFFFFFFF, rng.uniform(0, 1)), AntiAlias=True)
            canvas.drawCircle(*at, rng.uniform(0.016, 0.028), paint)


def _cloud(canvas: skia.Canvas, x: float, y: float, colour: int, rng: np.random.Generator) -> None:
    size = rng.uniform(0.5, 1.0)
    soft = skia.Paint(Color=colour, AntiAlias=True)
    soft.setMaskFilter(skia.MaskFilter.MakeBlur(skia.kNormal_BlurStyle, 0.07))
    for offset in np.linspace(-1, 1, 5):
        height = size * 0.26 * (1 - 0.55 * offset**2) * rng.uniform(0.8, 1.2)
        box = skia.Rect.MakeXYWH(
            x + offset * size * 0.7 - size * 0.4, y - height, size * 0.8, height * 1.5
        )
        canvas.drawOval(box, soft)


def _paint_land(canvas: skia.Canvas, conditions: Conditions, span: tuple[float, float]) -> None:
    left, right = span
    rng = np.random.default_rng(conditions.land_seed)
    haze = _SKIES[conditions.sky][2]
    for layer, (colour, lift) in enumerate(
        ((0xFF6E93A8, 0.34), (0xFF5E8F78, 0.20), (0xFF4E8650, 0.08))
    ):
        phases, x = rng.uniform(0, 6.3, 2), np.arange(math.floor(left), right + 0.1, 0.1)
        swing = 0.11 * np.sin(x * (0.55 + 0.2 * layer) + phases[0]) + 0.04 * np.sin(
            2.1 * x + phases[1]
        )
        path = skia.Path()
        path.moveTo(left, HORIZON_M + 0.5)
        for xi, yi in zip(x, HORIZON_M - lift - swing * (1.2 - 0.3 * layer), strict=True):
            path.lineTo(float(xi), float(yi))
        path.lineTo(right, HORIZON_M + 0.5)
        shade = mix(colour, haze, 0.5 - 0.16 * layer)
        canvas.drawPath(path, skia.Paint(Color=shade, AntiAlias=True))
    greens = (0xFF86B75A, 0xFF5FA046, 0xFF3B7A34, 0xFF2A5E2A)
    meadow = skia.Paint(Shader=_gradient((0, HORIZON_M), (0, VIEW_EXTENT_M), greens), Dither=True)
    canvas.drawRect(skia.Rect.MakeLTRB(left, HORIZON_M, right, VIEW_EXTENT_M + 0.1), meadow)
    _paint_grass(canvas, span, conditions.land_seed)


def _paint_grass(canvas: skia.Canvas, span: tuple[float, float], land_seed: int) -> None:
    """Soft swathes far away, broad blades in front; each metre draws from its own generator,
    so that a blade is the same in every view that shows it.
    """
    for metre in range(math.floor(span[0]) - 1, math.ceil(span[1]) + 1):
        rng = np.random.default_rng((land_seed, metre + 1000))
        for _ in range(9):
            y = HORIZON_M + 0.1 + 2.2 * rng.uniform(0, 1)
            near = (y - HORIZON_M) / 2.4
            colour = mix(0xFF3E7D36, 0xFF93C25E, rng.uniform(0.1, 0.9)) & 0xFFFFFF | 0x48000000
            box = skia.Rect.MakeXYWH(
                metre + rng.uniform(0, 1), y, 0.5 + 0.9 * near, 0.05 + 0.14 * near
            )
            swathe = skia.Paint(Color=colour, AntiAlias=True)
            swathe.setMaskFilter(skia.MaskFilter.MakeBlur(skia.kNormal_BlurStyle, 0.05))
            canvas.drawOval(box, swathe)
        for _ in range(12):
            x, height, lean = (
                metre + rng.uniform(0, 1),
                rng.uniform(0.25, 0.62),
                rng.uniform(-0.22, 0.22),
            )
            base, half = VIEW_EXTENT_M + 0.12, rng.uniform(0.03, 0.05)
            blade = skia.Path()
            blade.moveTo(x - half, base)
            blade.quadTo(x - half * 0.4, base - height * 0.6, x + lean, base - height)
            blade.quadTo(x + half, base - height * 0.5, x + half, base)
            colour = mix(0xFF24552A, 0xFF559A3E, rng.uniform(0, 1))
            canvas.drawPath(blade, skia.Paint(Color=colour, AntiAlias=True))


def paint_entity(canvas: skia.Canvas, entity: Entity) -> None:
    """Paint one flower: stem and leaves, then its head."""
    _paint_stem(canvas, entity)
    _paint_head(canvas, entity)


def _paint_stem(canvas: skia.Canvas, entity: Entity) -> None:
    radius = entity.radius_m
    foot = (entity.x_m, entity.ground_y_m)
    bend = (entity.x_m, (entity.ground_y_m + entity.head_y_m) / 2)
    green = mix(0xFF8DBB62, 0xFF2F7031, min(1.0, 0.35 + entity.nearness * 0.65))
    if entity.stage == "wilting":
        green = mix(green, _WITHERED, 0.45)
    stem = skia.Path()
    stem.moveTo(*foot)
    stem.quadTo(*bend, entity.head_x_m, entity.head_y_m)
    line = skia.Paint(Color=green, AntiAlias=True, Style=skia.Paint.kStroke_Style)
    line.setStrokeWidth(max(radius * 0.17, 0.018))
    canvas.drawPath(stem, line)
    if entity.nearness < 0.3:
        return
    height = entity.ground_y_m - entity.head_y_m
    for side in (-1, 1):
        at = entity.ground_y_m - height * (0.32 if side > 0 else 0.24)
        leaf = skia.Path()
        leaf.moveTo(entity.x_m, at)
        leaf.quadTo(
            entity.x_m + side * radius * 0.9,
            at - radius * 0.9,
            entity.x_m + side * radius * 1.35,
            at - radius * 1.0,
        )
        leaf.quadTo(entity.x_m + side * radius * 1.0, at - radius * 0.1, entity.x_m, at)
        canvas.drawPath(
            leaf, skia.Paint(Color=mix(green, 0xFF7DBB55, 0.3 if side > 0 else 0.0), AntiAlias=True)
        )


def _paint_head(canvas: skia.Canvas, entity: Entity) -> None:
    colours = PALETTE[entity.colour]
    if entity.stage == "wilting":
        colours = tuple(mix(c, _WITHERED, 0.26) for c in colours)  # type: ignore[assignment]
    canvas.save()
    canvas.translate(entity.head_x_m, entity.head_y_m)
    canvas.scale(entity.radius_m, entity.radius_m)
    canvas.rotate(entity.tilt_deg)
    if entity.nearness < 0.2:
        _dab(canvas, entity.species, colours)
    else:
        if entity.stage == "wilting":
            canvas.scale(0.92, 0.74)
        elif entity.stage == "bud":
            canvas.scale(0.5, 0.62)
        _HEADS[entity.species](canvas, colours, entity.turn_deg)
        if entity.stage == "bud":
            _sepals(canvas)
    canvas.restore()


Colours = tuple[int, int, int]


def _fill(colour: int) -> skia.Paint:
    return skia.Paint(Color=colour, AntiAlias=True)


def _petal(length: float, width: float, point: float, inner: float = 0.0) -> skia.Path:
    """A petal upwards from the centre; point 0 is round, 1 is sharp."""
    path = skia.Path()
    path.moveTo(0, -inner)
    path.cubicTo(width, -0.35 * length, width * (1 - point), -length, 0, -length)
    path.cubicTo(-width * (1 - point), -length, -width, -0.35 * length, 0, -inner)
    return path


def _ring(
    canvas: skia.Canvas, petal: skia.Path, count: int, colours: Colours, turn_deg: float
) -> None:
    """Petals around the centre, shaded from the shade at the base to the light at the tip."""
    centre = skia.Point(0, 0)
    shader = skia.GradientShader.MakeRadial(centre, 1.0, list(colours), [0.15, 0.55, 1.0])
    edge = skia.Paint(
        Color=colours[0] & 0xFFFFFF | 0xB0000000, AntiAlias=True, Style=skia.Paint.kStroke_Style
    )
    edge.setStrokeWidth(0.045)
    canvas.save()
    canvas.rotate(turn_deg)
    for _ in range(count):
        canvas.drawPath(petal, skia.Paint(Shader=shader, AntiAlias=True))
        canvas.drawPath(petal, edge)
        canvas.rotate(360 / count)
    canvas.restore()


def _daisy(canvas: skia.Canvas, colours: Colours, turn_deg: float) -> None:
    _ring(canvas, _petal(1.0, 0.40, 0.15), 10, colours, turn_deg)
    heart = skia.GradientShader.MakeRadial(skia.Point(-0.08, -0.1), 0.36, [0xFFFFE45C, 0xFFE0A010])
    canvas.drawCircle(0, 0, 0.31, skia.Paint(Shader=heart, AntiAlias=True))


def _sunflower(canvas: skia.Canvas, colours: Colours, turn_deg: float) -> None:
    back = (mix(colours[0], 0xFF000000, 0.2), colours[0], colours[1])
    _ring(canvas, _petal(1.12, 0.36, 0.85), 12, back, turn_deg + 15)
    _ring(canvas, _petal(1.04, 0.36, 0.85), 12, colours, turn_deg)
    heart = skia.GradientShader.MakeRadial(
        skia.Point(0, 0), 0.58, [0xFF2A1608, 0xFF4A2A10, 0xFF7A4A1C], [0.0, 0.55, 1.0]
    )
    canvas.drawCircle(0, 0, 0.58, skia.Paint(Shader=heart, AntiAlias=True))


def _poppy(canvas: skia.Canvas, colours: Colours, turn_deg: float) -> None:
    broad = _petal(1.0, 0.98, -0.05)
    _ring(canvas, broad, 2, (colours[0], colours[0], colours[1]), turn_deg + 90)
    _ring(canvas, broad, 2, colours, turn_deg)
    canvas.drawCircle(0, 0, 0.34, _fill(0xFF1B1420))
    canvas.drawCircle(0, 0, 0.15, _fill(0xFF7FA060))


def _tulip(canvas: skia.Canvas, colours: Colours, turn_deg: float) -> None:
    del turn_deg  # a tulip is seen from the side
    shade, body, light = colours
    side = skia.Path()
    side.moveTo(0, 0.85)
    side.cubicTo(1.0, 0.8, 0.95, -0.1, 0.66, -1.0)
    side.cubicTo(0.3, -0.5, 0.0, -0.1, 0, 0.85)
    front = skia.Path()
    front.moveTo(0, 0.9)
    front.cubicTo(0.85, 0.6, 0.6, -0.3, 0, -0.9)
    front.cubicTo(-0.6, -0.3, -0.85, 0.6, 0, 0.9)
    back = skia.Path()
    back.moveTo(-0.5, 0)
    back.lineTo(-0.3, -0.98)
    back.lineTo(0, -0.6)
    back.lineTo(0.3, -0.98)
    back.lineTo(0.5, 0)
    canvas.drawPath(back, _fill(shade))
    flank = skia.Paint(Shader=_gradient((0, -1), (0, 0.9), (body, shade)), AntiAlias=True)
    canvas.drawPath(side, flank)
    canvas.scale(-1, 1)
    canvas.drawPath(side, flank)
    canvas.drawPath(
        front,
        skia.Paint(Shader=_gradient((0, -0.9), (0, 0.9), (light, body, shade)), AntiAlias=True),
    )


def _lavender(canvas: skia.Canvas, colours: Colours, turn_deg: float) -> None:
    del turn_deg
    shade, body, light = colours
    for row in range(7):
        y, half = 1.0 - row * 0.5, 0.46 * (1 - row / 9)
        for side in (-1, 1, 0):
            tone = (shade, body, light)[(side + 1 + row) % 3 if side else 1]
            box = skia.Rect.MakeXYWH(side * half * 0.75 - half * 0.55, y - 0.3, half * 1.1, 0.58)
            canvas.drawOval(box, _fill(tone))


def _lily(canvas: skia.Canvas, colours: Colours, turn_deg: float) -> None:
    narrow = _petal(1.12, 0.44, 0.95)
    _ring(canvas, narrow, 3, (colours[0], colours[0], colours[1]), turn_deg + 60)
    _ring(canvas, narrow, 3, colours, turn_deg)
    canvas.drawCircle(0, 0, 0.2, _fill(0xFFDDEBA0))
    for angle in range(0, 360, 120):
        canvas.save()
        canvas.rotate(turn_deg + angle + 30)
        canvas.drawOval(skia.Rect.MakeXYWH(-0.07, -0.5, 0.14, 0.24), _fill(0xFF8A3A12))
        canvas.restore()


def _sepals(canvas: skia.Canvas) -> None:
    """The green cup that still holds a bud."""
    cup = skia.Path()
    cup.moveTo(-0.95, 0.05)
    cup.cubicTo(-0.8, 1.35, 0.8, 1.35, 0.95, 0.05)
    cup.quadTo(0.45, 0.95, 0.0, 0.35)
    cup.quadTo(-0.45, 0.95, -0.95, 0.05)
    canvas.drawPath(cup, _fill(0xFF4E8A3C))


def _dab(canvas: skia.Canvas, species: str, colours: Colours) -> None:
    """A flower too far away to have petals."""
    if species == "lavender":
        canvas.drawOval(skia.Rect.MakeXYWH(-0.45, -2.0, 0.9, 3.0), _fill(colours[1]))
        return
    canvas.drawOval(
        skia.Rect.MakeXYWH(-1.0, -0.85, 2.0, 1.7), _fill(mix(colours[1], colours[2], 0.3))
    )
    if species in ("sunflower", "poppy"):
        canvas.drawCircle(0, 0, 0.45, _fill(0xFF4A2A16))
    elif species == "daisy":
        canvas.drawCircle(0, 0, 0.35, _fill(0xFFE6B422))


_HEADS: dict[str, Callable[[skia.Canvas, Colours, float], None]] = {
    "daisy": _daisy,
    "tulip": _tulip,
    "sunflower": _sunflower,
    "poppy": _poppy,
    "lavender": _lavender,
    "lily": _lily,
}


def _paint_weather(canvas: skia.Canvas, conditions: Conditions, span: tuple[float, float]) -> None:
    left, right = span
    if conditions.weather == "misty":
        veil = mix(_SKIES[conditions.sky][2], 0xFFFFFFFF, 0.15) & 0xFFFFFF
        colours = (veil, 0x90000000 | veil, 0x70000000 | veil, 0x10000000 | veil)
        paint = skia.Paint(Shader=_gradient((0, 0.5), (0, 3.6), colours), Dither=True)
        canvas.drawRect(skia.Rect.MakeLTRB(left, 0.5, right, VIEW_EXTENT_M), paint)
    elif conditions.weather == "rainy":
        canvas.drawRect(skia.Rect.MakeLTRB(left, -0.1, right, 4.1), _fill(0x20506078))
        for metre in range(math.floor(left) - 1, math.ceil(right) + 1):
            rng = np.random.default_rng((conditions.cloud_seed, metre + 1000))
            for _ in range(9):
                x, y, length = (
                    metre + rng.uniform(0, 1),
                    rng.uniform(-0.2, 4),
                    rng.uniform(0.25, 0.5),
                )
                streak = skia.Paint(
                    Color=0x58DCE8F6, AntiAlias=True, Style=skia.Paint.kStroke_Style
                )
                streak.setStrokeWidth(0.022)
                canvas.drawLine(x, y, x - length * 0.22, y + length, streak)
