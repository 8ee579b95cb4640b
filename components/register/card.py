"""A model card: what people should know of a version before they rely on it.

After Mitchell et al. 2019, https://arxiv.org/abs/1810.03993, as far as a machine knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from components.bundle import Description

MAX_CHARACTERS = 5000
"""As many as MLflow's databases keep with a version."""
_EXAMPLE_CHARACTERS = 120


def model_card(
    description: Description,
    *,
    bundle: str,
    verdict: str,
    reasons: Sequence[str],
    scores: Mapping[str, Mapping[str, Mapping[str, float]]],
    power: str,
    rule: Sequence[str] = (),
) -> str:
    """Return the card in Markdown.

    Args:
        description: what the bundle says of itself.
        bundle: its digest.
        verdict: of the gate.
        reasons: of the gate's checks.
        scores: by model, set of rows and metric, as the gate reports them.
        power: what the test rows could have shown.
        rule: how it decides, in sentences.
    """
    task, recipe = description.task, description.recipe
    answers = ", ".join(task.label_names) or "a number"
    trained = [f"{key}: {recipe[key]}" for key in ("method", "epochs", "seed") if key in recipe]
    parts = [
        f"# {task.kind}: {verdict}",
        f"Reads {_article(task.content)}, answers {answers}. Bundle `{bundle[:12]}`.",
        " ".join(rule),
        "## Gate",
        "\n".join(f"- {reason}" for reason in reasons),
        power,
        "## Scores",
        _scores(scores),
        "## Training",
        "\n".join(f"- {line}" for line in (*trained, *_lineage(description))) or "- adopted",
        "## Limits",
        f"Known only on rows like those of its test set ({description.test_share:.0%} of all "
        "groups, never trained on). It says nothing of rows that look unlike them; drift is "
        "watched for, and answered by another training.",
    ]
    if task.content == "text":
        examples = [each[:_EXAMPLE_CHARACTERS].replace("\n", " ") for each in description.examples]
        parts += ["## Examples of its input", "\n".join(f"> {each}\n" for each in examples[:3])]
    card = "\n\n".join(part for part in parts if part)
    return card if len(card) <= MAX_CHARACTERS else card[: MAX_CHARACTERS - 1] + "…"


def _article(content: str) -> str:
    return "an image" if content == "image" else f"a {content}"


def _lineage(description: Description) -> list[str]:
    return [f"{name}: `{value[:12]}`" for name, value in description.lineage.items() if value]


def _scores(scores: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Return the scores of each model on the test rows as a table, one line for each metric."""
    tested = {who: sets["test"] for who, sets in scores.items() if "test" in sets}
    if not tested:
        return "None: it was not scored."
    metrics = list(dict.fromkeys(name for each in tested.values() for name in each))
    lines = [f"| | {' | '.join(tested)} |", f"|---|{'---:|' * len(tested)}"]
    for name in metrics:
        cells = [_number(name, each[name]) if name in each else "–" for each in tested.values()]
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _number(metric: str, value: float) -> str:
    return f"{value:,.0f}" if metric == "rows" else f"{value:.3f}"
