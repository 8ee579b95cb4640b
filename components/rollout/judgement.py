"""From what was seen in a stage to what comes of it; pure, so that it can be played through."""

from __future__ import annotations

import math
from typing import Literal

from components.rollout.config import RolloutConfig, Stage
from components.rollout.observations import Observations
from components.rollout.sequential import excess_evidence, is_alarm, share_evidence
from components.settings import Section

CHECKS = 3
"""Errors, latency and disagreement share ``alpha``."""

SLOWER_SCALE = math.log(1.25)
"""The latency test is best at challengers a quarter slower than allowed."""


class Check(Section):
    """One test of one stage."""

    name: Literal["errors", "latency", "disagreement"]
    measured: str
    limit: str
    evidence: float
    """Logarithm of the mixture likelihood ratio; below -1e9 stands for none at all."""
    alarm: bool


class Judgement(Section):
    """What comes of a stage."""

    action: Literal["stay", "pass", "fail"]
    reason: str
    checks: list[Check]


def judge(
    stage: Stage, config: RolloutConfig, seen: Observations, elapsed_minutes: float
) -> Judgement:
    """Judge a stage by what was seen in it so far.

    Args:
        stage: that runs.
        config: of the rollout.
        seen: since the stage began.
        elapsed_minutes: since then.
    """
    checks = [_errors(config, seen), _latency(config, seen), _disagreement(config, seen)]
    if seen.broken:
        return Judgement(action="fail", reason=seen.broken, checks=checks)
    alarms = [each for each in checks if each.alarm]
    if alarms:
        said = "; ".join(f"{each.name}: {each.measured}, allowed {each.limit}" for each in alarms)
        if seen.challenger.failures:
            said += f" ({_kinds(seen.challenger.failures)})"
        return Judgement(action="fail", reason=said, checks=checks)
    count, noun = progress(stage, seen)
    so_far = f"{count} of {stage.requests} {noun}"
    if count >= stage.requests and elapsed_minutes >= stage.minutes:
        return Judgement(action="pass", reason=f"{so_far}, nothing wrong", checks=checks)
    if elapsed_minutes >= max(stage.minutes, config.patience_hours * 60):
        waited = f"after {elapsed_minutes / 60:.0f} hours only {so_far}"
        return Judgement(action="fail", reason=f"too few requests: {waited}", checks=checks)
    return Judgement(action="stay", reason=so_far, checks=checks)


def progress(stage: Stage, seen: Observations) -> tuple[int, str]:
    """Return how many requests count for a stage, and what they are called."""
    return seen.challenger.requests, "copies" if stage.kind == "shadow" else "requests"


def _errors(config: RolloutConfig, seen: Observations) -> Check:
    errors, requests = seen.challenger.errors, seen.challenger.requests
    evidence = share_evidence(errors, requests, config.max_error_share)
    return _check(
        "errors", _share(errors, requests), f"{config.max_error_share:.1%}", evidence, config
    )


def _latency(config: RolloutConfig, seen: Observations) -> Check:
    ours, peer = seen.challenger.moments, seen.champion.moments
    evidence = excess_evidence(ours, peer, math.log1p(config.max_slowdown), SLOWER_SCALE)
    times = math.exp(ours.mean - peer.mean) if ours.count and peer.count else 1.0
    limit = f"{1 + config.max_slowdown:.2f} times the champion's"
    return _check("latency", f"{times:.2f} times the champion's", limit, evidence, config)


def _disagreement(config: RolloutConfig, seen: Observations) -> Check:
    evidence = share_evidence(seen.disagreeing, seen.compared, config.max_disagreement)
    measured = "nothing seen yet"
    if seen.compared:
        share = seen.disagreeing / seen.compared
        measured = f"{share:.1%} of a request's rows on average, in {seen.compared} requests"
    return _check("disagreement", measured, f"{config.max_disagreement:.1%}", evidence, config)


def _check(
    name: Literal["errors", "latency", "disagreement"],
    measured: str,
    limit: str,
    evidence: float,
    config: RolloutConfig,
) -> Check:
    return Check(
        name=name,
        measured=measured,
        limit=limit,
        evidence=max(evidence, -1e9),
        alarm=is_alarm(evidence, config.alpha / CHECKS),
    )


def _share(count: int, total: int) -> str:
    return f"{count} of {total} ({count / total:.1%})" if total else "nothing seen yet"


def _kinds(failures: dict[str, int]) -> str:
    most = sorted(failures.items(), key=lambda item: -item[1])
    return ", ".join(f"{count} x {kind}" for kind, count in most[:3])
