"""The exact tier: what each mixer costs, as a text in git that people review, compared without any tolerance.

    tiny_sd linfusion 64 fp32
      down_blocks.0.attentions.0.transformer_blocks.0.attn1
        mixer       LinFusionAttention on 16x16 tokens of 64 channels
        FLOPs       8,523,776
        parameters  20,800
        bytes       393,216
        operators   addmm 3, gelu 1

A line a number, so that the difference of two texts names site and mixer by itself. Bytes and operators are torch's
doing as well: the first line names its version, and under another one they are not judged.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.records.case import BadInput, Case
from harness.records.files import writable, write_whole
from harness.records.record import Reading, Record
from harness.regression.verdict import RENEW, Verdict, several

TITLE = "# What each mixer costs, counted, under torch "
BODY = "around the mixers"
OF_TORCH = ("bytes", "operators", "peak bytes", "peak at")
WIDTH = 10

Costs = dict[str, dict[str, dict[str, str]]]
"""Case -> site -> what -> how much, all as they are written."""


@dataclass(frozen=True)
class Exact:
    """The text and what it says."""

    torch: str
    costs: Costs

    @classmethod
    def of(cls, records: Sequence[Record]) -> "Exact":
        """What the records counted; cases without the metric `site_costs` are left out."""
        taken = {label(record.case): reading for record in records if (reading := record.number("site_costs"))}
        versions = [reading.details["torch"] for reading in taken.values()]
        return cls(versions[0] if versions else "", {case: _sites(reading) for case, reading in taken.items()})

    @classmethod
    def load(cls, path: Path) -> "Exact":
        """Read a text; BadInput for one that is absent or no such text."""
        try:
            return cls.parse(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise BadInput(
                f"there is no text of exact costs at {str(path)!r}: write it with gate.update=true, give another with "
                "gate.exact=FILE, or leave them out with gate.exact=null"
            ) from error
        except (OSError, ValueError) as error:
            raise BadInput(
                f"{str(path)!r} is no text of exact costs ({error}): write it anew with gate.update=true"
            ) from error

    @classmethod
    def parse(cls, text: str) -> "Exact":
        """The inverse of `text`; ValueError names the first line that does not fit."""
        title, *lines = text.splitlines() or [""]
        if not title.startswith(TITLE):
            raise ValueError(f"its first line is not {TITLE!r} with a version")
        costs: Costs = {}
        case = site = ""
        for number, line in enumerate(lines, 2):
            depth, words = len(line) - len(line.lstrip()), line.strip()
            if depth == 0:
                case = words
            elif depth == 2 and case:
                site = words
            elif depth == 4 and case and site and "  " in words:
                what, _, much = words.partition("  ")
                costs[case].setdefault(site, {})[what] = much.strip()
            else:
                raise ValueError(f"line {number} is {line[:40]!r}")
            if words:
                costs.setdefault(case, {})
        costs.pop("", None)
        return cls(title.removeprefix(TITLE), costs)

    def text(self) -> str:
        """One case after the other, in the order of their names."""
        lines = [f"{TITLE}{self.torch}"]
        for case, sites in sorted(self.costs.items()):
            lines += ["", case]
            for site, costs in sites.items():
                lines += [f"  {site}", *(f"    {what:<{WIDTH}}  {much}" for what, much in costs.items())]
        return "\n".join(lines) + "\n"

    def save(self, path: Path) -> None:
        """Write the text; BadInput where it cannot be written."""
        with writable(f"the text of exact costs {str(path)!r}", "give another with gate.exact=FILE"):
            write_whole(path, self.text())


def judge(now: Exact, then: Exact) -> list[Verdict]:
    """A verdict for each case; where something moved, one for each site and number, by mixer and site."""
    verdicts = []
    for case in sorted(now.costs.keys() | then.costs.keys()):
        if case not in then.costs or case not in now.costs:
            lacks = "text lacks this case" if case in now.costs else "text has this case, the run does not"
            verdicts.append(Verdict("exact", case, "inconclusive", None, None, f"the {lacks}", "exact", RENEW))
            continue
        moved = list(_moved(case, now, then))
        verdicts += moved or [Verdict("exact", case, "pass", None, None, "equal", "exact")]
    return verdicts


def label(case: Case) -> str:
    """What a case is called here; nothing of it depends on a device."""
    return f"{case.model} {case.variant} {case.resolution} {case.dtype}"


def _moved(case: str, now: Exact, then: Exact) -> Iterator[Verdict]:
    """A verdict for each number that moved; sites of one mixer where it moved alike share one."""
    mine, theirs = now.costs[case], then.costs[case]
    found: dict[tuple[str, str, str, str], list[str]] = {}
    for site in [*theirs, *(site for site in mine if site not in theirs)]:
        new, old = mine.get(site, {}), theirs.get(site, {})
        mixer = new.get("mixer", old.get("mixer", ""))
        for what in [*old, *(what for what in new if what not in old)]:
            if new.get(what) != old.get(what):
                key = (mixer.partition(" ")[0], what, old.get(what, "nothing"), new.get(what, "nothing"))
                found.setdefault(key, []).append(site)
    for (mixer, what, old_value, new_value), sites in found.items():
        where = f"{mixer} at {several(sites)}" if mixer else BODY
        old_said, new_said = _apart(old_value, new_value) if what == "operators" else (old_value, new_value)
        given, expected = _number(new_value), _number(old_value)
        told = f"{where}: {what} {old_said} -> {new_said}{_share(expected, given)}"
        if what in OF_TORCH and now.torch != then.torch:
            why = f"{told}; the text is of torch {then.torch}, this is {now.torch}"
            yield Verdict(what, case, "inconclusive", None, None, why, "exact", f"torch {then.torch}; or {RENEW}")
        else:
            yield Verdict(what, case, "regression", given, expected, f"{told}: {RENEW}", "exact")


def _apart(old: str, new: str) -> tuple[str, str]:
    """Those of two lists of operators that differ."""
    before, after = (dict(one.rsplit(" ", 1) for one in text.split(", ") if " " in one) for text in (old, new))
    names = [name for name in sorted(before | after) if before.get(name) != after.get(name)]
    said = [", ".join(f"{name} {counts.get(name, 0)}" for name in names) for counts in (before, after)]
    return said[0], said[1]


def _share(before: float | None, after: float | None) -> str:
    return f" ({after - before:+,.0f}, {after / before - 1:+.2%})" if before and after is not None else ""


def _number(text: str) -> float | None:
    plain = text.replace(",", "")
    return float(plain) if plain.isdecimal() else None


def _sites(reading: Reading) -> dict[str, dict[str, str]]:
    body = reading.details["body"]
    around = {f"{kind} FLOPs": f"{flops:,}" for kind, flops in body["flops"].items()}
    around |= {"parameters": f"{body['parameters']:,}", "peak bytes": f"{body['bytes']:,}", "peak at": body["at"]}
    return {BODY: around} | {path: _site(site) for path, site in reading.details["sites"].items()}


def _site(site: Mapping[str, Any]) -> dict[str, str]:
    tokens = "x".join(map(str, site["tokens"]))
    return {
        "mixer": f"{site['mixer']} on {tokens} tokens of {site['channels']} channels",
        "FLOPs": f"{site['flops']:,}",
        "parameters": f"{site['parameters']:,}",
        "bytes": f"{site['bytes']:,}",
        "operators": ", ".join(f"{name} {count}" for name, count in site["operators"].items()) or "none",
    }
