"""How a number is written for people: GFLOPs, MiB, ms, and as many digits as its interval supports.

Rounding happens here, at the moment of display, and nowhere else.
"""

import math
from dataclasses import dataclass

DASH = "–"
_SI = ((1e24, "Y"), (1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_BINARY = ((2**50, "PiB"), (2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))
_TIME = ((8.64e7, "d"), (3.6e6, "h"), (6e4, "min"), (1e3, "s"), (1.0, "ms"), (1e-3, "µs"))
_DIGITS = {"1": 4, "share": 3}
_SCORES = {"1", "share", "%", "dB", "nat", "bit", "point", "token"}


@dataclass(frozen=True)
class Scale:
    """A divisor and the symbol of what is left."""

    divisor: float
    symbol: str


def is_cost(unit: str, better: str) -> bool:
    """Whether a reading counts something that is paid (FLOPs, bytes, time), rather than scoring an outcome."""
    return unit not in _SCORES and better != "higher"


def scale(value: float, unit: str) -> Scale:
    """The unit in which people would say this value."""
    size = abs(value)
    if unit == "byte":
        return _pick(size, _BINARY)
    if unit == "ms":
        return _pick(size, _TIME)
    if unit == "FLOP":
        step = _pick(size, _SI)
        return Scale(step.divisor, f"{step.symbol}FLOPs")
    if unit == "parameter":
        return _pick(size, tuple((by, {"G": "B"}.get(name, name)) for by, name in _SI if by <= 1e12))
    if unit == "share":
        return Scale(0.01, "%")
    if unit in ("1", "x"):
        return Scale(1.0, "×" if unit == "x" else "")
    step = _pick(size, _SI) if size >= 1e5 else Scale(1.0, "")
    return Scale(step.divisor, f"{step.symbol} {unit}".strip())


def human(value: float | int | None, unit: str, digits: int | None = None) -> str:
    """`1.23 GFLOPs`; a dash for None. Three significant digits, four for scores, all of a small integer."""
    if value is None:
        return DASH
    to = scale(value, unit)
    shown = value / to.divisor
    if isinstance(value, int) and to.divisor == 1:
        return _join(str(value), to.symbol)
    return _join(_fixed(shown, _decimals_of(shown, digits or _DIGITS.get(unit, 3))), to.symbol)


def tick(value: float, unit: str) -> str:
    """A round value on an axis: `10 GFLOPs`, `2.5 ms`."""
    to = scale(value, unit)
    return _join(f"{value / to.divisor:.4g}", to.symbol)


def with_interval(value: float | int | None, low: float | None, high: float | None, unit: str) -> tuple[str, str]:
    """Value and interval as text, in one unit and to the same decimals: two significant digits of the half width."""
    if value is None or low is None or high is None:
        return human(value, unit), ""
    to = scale(value, unit)
    half = abs(high - low) / 2 / to.divisor
    decimals = _decimals_of(half, 2) if half > 0 else _decimals_of(value / to.divisor, _DIGITS.get(unit, 3))
    shown = [_fixed(number / to.divisor, min(decimals, 6)) for number in (value, low, high)]
    return _join(shown[0], to.symbol), f"{shown[1]} to {shown[2]}"


def in_full(value: float | int | None, low: float | None, high: float | None, unit: str) -> str:
    """`1.23 GFLOPs (1.20 to 1.26)`."""
    text, interval = with_interval(value, low, high, unit)
    return f"{text} ({interval})" if interval else text


def ratio(value: float) -> str:
    """`0.31×`, `12.3×`, `0.0042×`; what is as good as equal reads `1.00×`."""
    decimals = 2 if 0.1 <= value < 10 else _decimals_of(value, 2 if value < 0.1 else 3)
    return f"{_fixed(value, decimals)}×"


def duration(seconds: float) -> str:
    """`4 min 10 s`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, left = divmod(whole, 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {left} s"


_WRITTEN = {name: name.upper() for name in ("clip", "fdd", "fd", "ds", "kd", "cmmd", "psnr", "ssim", "lpips", "dino")}
_WRITTEN |= {"flops": "FLOPs", "cos": "cosine", "infinite": "at infinite n"}


def spoken(name: str) -> str:
    """A reading's name in prose: `flops_mixers` is `FLOPs, mixers only`, `clip_score` is `CLIP score`."""
    base = name.removesuffix("_mixers")
    words = [_WRITTEN.get(word, word) for word in base.split("_")]
    text = " ".join(words) + (", mixers only" if base != name else "")
    return text[:1].upper() + text[1:]


def _pick(size: float, steps: tuple[tuple[float, str], ...]) -> Scale:
    for divisor, symbol in steps:
        if size >= divisor:
            return Scale(divisor, symbol)
    return Scale(1.0, dict(steps).get(1.0, "")) if size == 0 else Scale(*steps[-1])


def _decimals_of(number: float, digits: int) -> int:
    if number == 0:
        return 0
    return min(12, max(0, digits - 1 - math.floor(math.log10(abs(number)))))


def _fixed(number: float, decimals: int) -> str:
    return f"{number:.{decimals}f}".replace("-", "−")


def _join(number: str, symbol: str) -> str:
    glue = "" if symbol in ("%", "×") else "\u00a0"
    return f"{number}{glue}{symbol}" if symbol else number
