"""Rows in quarantine: listed, explained, put right and taken in again."""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import pandas as pd

from components import home
from components.errors import BadInput
from components.quarantine import KEY, REASONS, UNREAD, Quarantine, Readmissions, Readmitted
from components.sources.rows import COLUMNS
from components.validate.reasons import explained, is_waivable
from pipelines.project import ProjectConfig


def listed(project: ProjectConfig) -> pd.DataFrame:
    """Return the quarantined rows, with the columns ``key``, ``reasons`` and ``state``."""
    store = home.store()
    rows = Quarantine(store, project.ledger).rows()
    readmissions = Readmissions(store, project.ledger)
    again = readmissions.until(readmissions.last)
    return rows.assign(state=["taken in again" if key in again else "waiting" for key in rows[KEY]])


def found(project: ProjectConfig, names: Sequence[str]) -> pd.DataFrame:
    """Return the quarantined rows of some ids or keys, or of what begins a single key.

    Raises:
        BadInput: a name fits no row, or begins the keys of several.
    """
    rows = listed(project)
    places: list[int] = []
    for name in names:
        fits = rows["id"] == name
        if not fits.any():
            # A number may well be an id, and begin the keys of others.
            fits = rows[KEY].str.startswith(name) & bool(name)
            if fits.sum() > 1:
                raise BadInput(f"{name!r} begins the keys of {fits.sum()} rows; write more of it")
        if not fits.any():
            raise BadInput(
                f"no row in quarantine has the id or key {name!r}; "
                "see: tokiwa quarantine list PROJECT"
            )
        places += [place for place in rows.index[fits] if place not in places]
    return rows.loc[places]


def readmit(
    project: ProjectConfig, names: Sequence[str], changes: Mapping[str, str], reason: str
) -> list[Readmitted]:
    """Take rows in again from the next run on.

    Args:
        project: whose rows.
        names: keys, beginnings of keys, or ids.
        changes: values to put right, by column; the row is checked again with them.
        reason: for those who read the history.

    Raises:
        BadInput: a name fits no row, a column does not exist, or nothing was put right of
            what no model can do without.
    """
    rows = found(project, names)
    known = (*COLUMNS, *project.source.metadata)
    if wrong := sorted(set(changes) - set(known)):
        ours = {
            column: name for form in project.source.forms for name, column in form.wanted.items()
        }
        called = [f"{each} is called {ours[each]} here" for each in wrong if each in ours]
        there = "; ".join([*called, f"there are {', '.join(known)}"])
        raise BadInput(f"rows have no column {', '.join(wrong)}; {there}")
    if len(rows) > 1 and "id" in changes:
        raise BadInput(f"{len(rows)} rows cannot have one id; name a single one by its key")
    label = changes.get("label")
    if label is not None and not project.task.known(pd.Series([label], dtype=object))[0]:
        names_known = ", ".join(project.task.label_names) or "numbers"
        raise BadInput(f"the task does not know the label {label!r}, only {names_known}")
    made = []
    for _, row in rows.iterrows():
        if row.get("source") == UNREAD:
            raise BadInput(
                f"{row['id']} could not be read: {row[REASONS]}. Mend it where it lies, and the "
                "next run reads it"
            )
        codes = str(row[REASONS]).split(",")
        fixed = [code for code in codes if not is_waivable(code)]
        if fixed and not changes:
            raise BadInput(
                f"{row['id'] or row[KEY]} cannot be taken in as it is: {explained(fixed[0])}. "
                "Put it right with --set column=value"
            )
        waived = [code for code in codes if is_waivable(code)]
        made.append(
            Readmitted(key=row[KEY], window=row["window"], waived=waived, changes=dict(changes))
        )
    readmissions = Readmissions(home.store(), project.ledger)
    readmissions.add(made, getpass.getuser(), reason, datetime.now(UTC))
    return made
