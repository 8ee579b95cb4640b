"""Publish a challenger's bundle to the store and give it a version in MLflow.

Every challenger that reached a verdict is kept, so that any of them can be looked at
or promoted by hand later.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from components import bundle
from components.candidates import Candidate, Candidates
from components.decision_rule import DecisionRule
from components.register.card import model_card
from components.registry import Registry
from components.settings import Section
from components.signature import SigningKey
from components.store import Store


class RegisterConfig(Section):
    """Section ``register``."""

    tags: dict[str, str] = {}
    """Tags of your own for every version."""
    signing_key_env: Annotated[str, Field(pattern=r"^(TOKIWA_[A-Z0-9_]+)?$")] = ""
    """Name of the environment variable, TOKIWA_…, that holds the private key (Ed25519, PEM) or
    the path of its file; every version is signed with it. The key itself is never written here."""


class Evidence(Section):
    """What the gate said, as far as the registry cares."""

    verdict: str
    reasons: list[str]
    """Of each check that found something; the one that decided comes first."""
    scores: dict[str, dict[str, dict[str, float]]]
    power: str = ""
    """What the test rows could have shown."""
    rule: list[str] = []
    """How the challenger decides, in sentences."""

    @classmethod
    def read(cls, report: Path) -> Evidence:
        """Read what matters from the evaluate step's report."""
        found = json.loads(report.read_text())
        return cls(
            verdict=found["verdict"],
            reasons=[_reason(check) for check in found["checks"] if _tells(check)],
            scores=found["scores"],
            power=found["power"],
            rule=_sentences(found.get("rules", {}).get("challenger")),
        )


def _sentences(rule: dict[str, Any] | None) -> list[str]:
    return [] if rule is None else DecisionRule.model_validate(rule).sentences


def _tells(check: dict[str, Any]) -> bool:
    """Tell whether a check says something: a veto that was asked, or a warning."""
    asked, good = check["verdict"] != "skipped", check["verdict"] == "passed"
    return asked and (check["required"] or not good)


def _reason(check: dict[str, Any]) -> str:
    reason = str(check["reason"])
    return reason if check["required"] else f"warning: {reason}"


class RegisterReport(Section):
    """The version of the challenger."""

    schema_version: int = 1
    version: str
    bundle: str
    source: str
    verdict: str
    reason: str
    """Of the check that decided."""
    checks: list[str]
    scores: dict[str, dict[str, dict[str, float]]]
    device_hours: float
    """What the training cost, also if its result was kept from an earlier run."""

    @property
    def headline(self) -> str:
        """The one thing to see."""
        return f"version {self.version}, verdict {self.verdict}"


def device_hours_of(training: Path) -> float:
    """Return what a training cost, from the report of the finetune step."""
    return float(json.loads(training.read_text())["device_hours"])


def register(
    challenger: Path,
    predictions: Path,
    evidence: Evidence,
    *,
    store: Store,
    candidates: Candidates,
    registry: Registry,
    cause: str,
    run: str,
    training_run: str,
    generation: int,
    device_hours: float,
    signing_key: SigningKey | None,
    config: RegisterConfig,
) -> RegisterReport:
    """Publish and register; doing it again changes nothing but the tags.

    Args:
        challenger: sealed bundle.
        predictions: folder of its evaluated rows and answers.
        evidence: what the gate said.
        store: where bundles are published.
        candidates: of the ledger, to be promoted by a person later.
        registry: MLflow.
        cause: why the training run started.
        run: id of the pipeline run.
        training_run: id of the MLflow run that trained it, empty if there is none.
        generation: the ledger's length when the run began.
        device_hours: what the training cost.
        signing_key: signs the bundle; None where the project does not sign.
        config: the section ``register``.
    """
    description = bundle.verify(challenger)
    digest = bundle.publish(store, challenger)
    if signing_key is not None:
        signing_key.sign(store, digest)
    source = store.uri(bundle.key_of(digest))
    tags = {
        **config.tags,
        "tokiwa.verdict": evidence.verdict,
        "tokiwa.trigger": cause,
        "tokiwa.run": run,
        **{f"tokiwa.{name}": value for name, value in description.lineage.items()},
    }
    version = registry.register(
        digest,
        source,
        training_run or None,
        tags,
        card=model_card(
            description,
            bundle=digest,
            verdict=evidence.verdict,
            reasons=evidence.reasons,
            scores=evidence.scores,
            power=evidence.power,
            rule=evidence.rule,
        ),
    )
    candidates.keep(
        Candidate(
            version=version,
            bundle=digest,
            verdict=evidence.verdict,
            reason=evidence.reasons[0],
            run=run,
            generation=generation,
            at=datetime.now(UTC).isoformat(),
        ),
        predictions,
    )
    return RegisterReport(
        version=version,
        bundle=digest,
        source=source,
        verdict=evidence.verdict,
        reason=evidence.reasons[0],
        checks=evidence.reasons,
        scores=evidence.scores,
        device_hours=device_hours,
    )
