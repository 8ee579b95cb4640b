"""Rows left out, taken in again and forgotten, on a project of files."""

from __future__ import annotations

import csv
import io
import json
import random
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
from safetensors.numpy import load

from components import home
from components.erasures import Erasures, forgotten_since
from components.errors import BadInput
from components.ingest.core import ingest
from components.quarantine import Quarantine, Readmissions, keeper, taken_in
from components.records import Records
from components.request_log import (
    COLUMNS,
    Feedback,
    RequestLog,
    digest_of_content,
    new_file,
    row_id,
)
from components.resolve.core import resolve
from components.split import is_test
from components.store import LocalStore
from components.validate.core import validate
from pipelines.cli import main
from pipelines.draft_schema import drafted
from pipelines.forgetting import forget, summary
from pipelines.project_file import load as load_project
from pipelines.quarantining import found, listed, readmit
from pipelines.rows import prepared_rows

PROJECT = """\
name: shop
task: {{kind: text-classification, labels: [bad, good], max_tokens: 16}}
source:
  kind: files
  files: [{{path: rows.csv}}]
  columns:
    id: id
    text: text
    label: label
    time: day
    group: customer
    metadata: {{age: {{kind: number}}, land: land}}
resolve: {{timezone: UTC, window_days: 7, start: "2026-01-05"}}
validate: {{severity: {{characters: error}}}}
finetune: {{base: {base}}}
"""
MARKED = "the film was \u202every good\u202c and \x01 long"
WRITTEN = "ann wrote that the <film> was very good"


@pytest.fixture
def shop(tmp_path, tiny_base, monkeypatch):
    """A project of two weeks; some rows of the second are bad."""
    monkeypatch.setenv("TOKIWA_HOME", str(tmp_path / "home"))
    draw = random.Random(0)
    rows = []
    for number in range(240):
        label = draw.choice(("good", "bad"))
        text = f"the {label} film " + " ".join(draw.choices(("story", "a", "very", "and"), k=6))
        day = 5 + number // 120 * 7
        land, age = draw.choice(("jp", "de")), draw.randrange(20, 60)
        rows.append([f"r{number}", text, label, f"2026-01-{day:02d}", f"c{number}", age, land])
    rows[200][2] = "godo"
    rows[201][1] = MARKED
    rows[202][1] = ""
    rows[203][0] = rows[204][0] = "twice"
    for number in (30, 150, 151):
        rows[number][4] = "ann"
    rows[150][1] = WRITTEN
    rows[151][2] = ""
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["id", "text", "label", "day", "customer", "age", "land"], *rows]
        )
    (tmp_path / "shop.yaml").write_text(PROJECT.format(base=tiny_base))
    return load_project(str(tmp_path / "shop.yaml"))


def run(project, folder, ledger="projects/shop"):
    """Run the steps up to validation; return the plan, the report and the good rows."""
    store = home.store()
    plan = resolve(
        project=project.name,
        source=project.source,
        bases=project.bases,
        config=project.resolve,
        window="latest",
        purpose="training",
        head=None,
        store=store,
        now=datetime(2026, 2, 1, tzinfo=UTC),
        ledger=ledger,
    )
    ingested = ingest(plan.data, folder / "snapshot", project.ingest)
    report = validate(
        folder / "snapshot",
        plan.live.current.window.name,
        folder / "good",
        folder / "quarantine.parquet",
        project.task,
        project.validate_,
        readmitted=taken_in(store, plan.admission),
        keep=keeper(store, plan.admission),
    )
    assert ingested.read == report.rows + report.quarantined + ingested.duplicates
    return plan, report, pd.read_parquet(folder / "good" / "rows.parquet")


LEFT_OUT = {
    "r200": "unknown-label",
    "r201": "bidi-control,control-character",
    "r202": "empty-text,no-letter-or-digit,missing-text",
    "twice": "duplicate-id",
    "r151": "missing-label",
}


def test_what_a_run_leaves_out_is_kept_once_and_never_deleted(shop, tmp_path):
    assert listed(shop).empty
    plan, _, _ = run(shop, tmp_path / "1")
    rows = listed(shop)
    assert len(rows) == 6
    assert set(rows["id"]) == set(LEFT_OUT)
    assert set(rows["state"]) == {"waiting"}
    for _, row in rows.iterrows():
        assert set(row["reasons"].split(",")) <= set(LEFT_OUT[row["id"]].split(","))
    again, _, _ = run(shop, tmp_path / "2")
    assert again == plan
    assert len(listed(shop)) == 6
    assert set(listed(shop)["window"]) == {"2026-01-12"}
    # A run whose rows are all good deletes nothing.
    Quarantine(home.store(), shop.ledger).keep(pd.DataFrame(columns=["window", "reasons"]))
    assert len(listed(shop)) == 6


def test_a_replay_keeps_its_quarantine_to_itself(shop, tmp_path):
    run(shop, tmp_path / "1", ledger="replays/shop/1")
    assert listed(shop).empty


def test_a_row_that_was_put_right_takes_part_in_the_next_run(shop, tmp_path):
    before, report, good = run(shop, tmp_path / "1")
    assert "r200" not in set(good["id"])
    (made,) = readmit(shop, ["r200"], {"label": "good"}, "a typing error")
    assert (made.changes, made.waived) == ({"label": "good"}, [])
    after, again, good = run(shop, tmp_path / "2")
    # Another plan: what was made of the old one is not taken from the cache.
    assert after.admission != before.admission
    assert after.data == before.data
    assert good["label"][good["id"] == "r200"].tolist() == ["good"]
    assert (again.rows, again.readmitted) == (report.rows + 1, 1)
    assert dict(listed(shop)[["id", "state"]].to_numpy())["r200"] == "taken in again"
    record = Readmissions(home.store(), shop.ledger).last
    assert record == 1


def test_a_row_whose_reason_a_person_waives_is_taken_as_it_is(shop, tmp_path):
    run(shop, tmp_path / "1")
    readmit(shop, ["r201"], {}, "it is a quotation")
    _, report, good = run(shop, tmp_path / "2")
    assert good["text"][good["id"] == "r201"].tolist() == [MARKED]
    assert report.readmitted == 1


@pytest.mark.parametrize(
    ("names", "changes", "says"),
    [
        (["nobody"], {}, "no row in quarantine has the id or key 'nobody'"),
        (["r200"], {}, "the label is none of the task's. Put it right with --set"),
        (["r200"], {"mood": "x"}, "rows have no column mood; there are id, group"),
        (["r200"], {"day": "x"}, "no column day; day is called time here; there are id, group"),
        (["twice"], {"id": "once"}, "2 rows cannot have one id; name a single one by its key"),
    ],
)
def test_what_cannot_be_taken_in_says_why(shop, tmp_path, names, changes, says):
    run(shop, tmp_path / "1")
    with pytest.raises(BadInput, match=says):
        readmit(shop, names, changes, "why not")
    assert Readmissions(home.store(), shop.ledger).last == 0


def test_a_name_means_the_row_of_that_id_and_no_other(shop, tmp_path):
    run(shop, tmp_path / "1")
    rows = listed(shop)
    assert found(shop, ["r200"])["id"].tolist() == ["r200"]
    key = rows["key"].iloc[0]
    assert found(shop, [key[:12]])["key"].tolist() == [key]
    with pytest.raises(BadInput, match="no row in quarantine has the id or key ''"):
        found(shop, [""])
    keys = rows["key"].tolist()
    begins = next(each[0] for each in keys if sum(one[0] == each[0] for one in keys) > 1)
    with pytest.raises(BadInput, match=f"'{begins}' begins the keys of . rows; write more of it"):
        found(shop, [begins])
    # An id that begins the key of another row is that id.
    Quarantine(home.store(), shop.ledger).keep(
        rows.iloc[:1].drop(columns=["key", "state"]).assign(id=keys[1][0])
    )
    assert found(shop, [keys[1][0]])["id"].tolist() == [keys[1][0]]


def test_of_two_rows_with_one_id_one_gets_another(shop, tmp_path):
    run(shop, tmp_path / "1")
    key = found(shop, ["twice"])["key"].iloc[0]
    readmit(shop, [key[:8]], {"id": "once"}, "the shop's system counted wrong")
    _, _, good = run(shop, tmp_path / "2")
    assert {"once", "twice"} <= set(good["id"])


def test_the_commands_list_show_and_take_in(shop, tmp_path, capsys):
    run(shop, tmp_path / "1")
    project = str(tmp_path / "shop.yaml")
    assert main(["quarantine", "list", project]) == 0
    assert "unknown-label" in capsys.readouterr().out
    assert main(["quarantine", "list", project, "--code", "duplicate-id", "--json"]) == 0
    assert [each["id"] for each in json.loads(capsys.readouterr().out)] == ["twice", "twice"]
    assert main(["quarantine", "show", project, "r201"]) == 0
    shown = capsys.readouterr().out
    # What a terminal would obey is shown as what it is.
    assert r"\u202every" in shown
    assert "\u202e" not in shown
    assert "another order than it is stored" in shown
    words = ["quarantine", "readmit", project, "r200", "--set", "label=good", "--reason", "typo"]
    assert main(words) == 0
    assert "1 rows of window 2026-01-12 take part in the next run" in capsys.readouterr().out
    assert main([*words[:4], "--set", "label", "--reason", "typo"]) == 2
    assert main([*words[:4], "--set", "label=Good", "--reason", "typo"]) == 2
    assert "does not know the label 'Good', only" in " ".join(capsys.readouterr().err.split())
    for wrong in (["--code", "unknwn-label"], ["--window", "2026-01-01"]):
        assert main(["quarantine", "list", project, *wrong]) == 0
        said = capsys.readouterr().out
        assert "rows of shop in quarantine is one of these" in said
        assert "2026-01-12" in said and "unknown-label" in said


# --- forgetting ---


def test_a_group_that_is_forgotten_is_in_nothing_that_is_read_or_kept(shop, tmp_path):
    store = home.store()
    run(shop, tmp_path / "1")
    prepared_rows(shop, "latest", None, home.home() / "artifacts" / "1", lambda *_: None)
    part = pd.DataFrame({"id": ["a", "b"], "group": ["ann", "bob"], "text": [None, "other"]})
    store.put("summaries/1.parquet", part.to_parquet(index=False))
    (home.home() / "artifacts" / "page.html").write_text(f"<p>{WRITTEN.replace('<', '&lt;')}")
    (home.home() / "artifacts" / "page.html").write_text(
        f"<p>{WRITTEN.replace('<', '&lt;').replace('>', '&gt;')}</p>"
    )
    (home.home() / "artifacts" / "other.html").write_text("<p>of somebody else</p>")
    dry = forget(shop, "group", ["ann"], "asked to", dry_run=True)
    assert (dry.rows, dry.recorded, dry.windows) == (3, 0, ["2026-01-05", "2026-01-12"])
    assert len(listed(shop)) == 6
    report = forget(shop, "group", ["ann", "nobody"], "asked to")
    assert (report.rows, report.recorded, report.unknown) == (3, 1, ["nobody"])
    assert report.embeddings == 1
    assert report.deleted == [str(home.home() / "artifacts" / "page.html")]
    assert "r151" not in set(listed(shop)["id"])
    for path in (home.home() / "artifacts").rglob("*.parquet"):
        assert "ann" not in set(pd.read_parquet(path).get("group", ()))
    assert pd.read_parquet(io.BytesIO(store.get("summaries/1.parquet")))["id"].tolist() == ["b"]
    (kept,) = store.list("embeddings/")
    names = load(store.get(kept))["digests"]
    plan, _, good = run(shop, tmp_path / "2")
    assert "ann" not in set(good["group"])
    assert len(names) == len(load(store.get(kept))["vectors"])
    assert plan.live.current.rows == 118
    # The record names nobody.
    (record,) = Erasures(store, shop.ledger).all()
    assert "ann" not in json.dumps([record.digests])
    assert any("no later run reads them" in line for line in summary(report))


def traces(store, names, contents):
    """Return where a store or a folder of artifacts still shows somebody, by the first folders."""
    found = {}
    for key in store.list():
        raw = store.get(key)
        if raw[:4] == b"PAR1":
            cells = {
                str(each)
                for _, column in pd.read_parquet(io.BytesIO(raw)).items()
                for each in column
            }
            shown = [each for each in names if each in cells]
            shown += [each for each in contents if any(each in cell for cell in cells)]
        else:
            shown = [each for each in contents if json.dumps(each)[1:-1].encode() in raw]
            shown += [each for each in names if f'"{each}"'.encode() in raw]
        if shown:
            found[key] = shown
    return found


@pytest.mark.slow
def test_somebody_forgotten_is_in_no_object_of_a_bucket(shop, tmp_path, s3_url, monkeypatch):
    monkeypatch.setenv("TOKIWA_STORE", s3_url)
    store, at = home.store(), datetime(2026, 1, 14, tzinfo=UTC)
    with (tmp_path / "rows.csv").open("a") as file:
        file.write("r900,one field too many of hers,good,2026-01-13,ann,30,jp,odd\n")
        file.write("r901,one field too many of his,good,2026-01-13,annabel,30,jp,odd\n")
    run(shop, tmp_path / "1")
    readmit(shop, ["r151"], {"label": "good", "text": "ann says it was good after all"}, "asked")
    readmit(shop, ["r200"], {"label": "good"}, "a typing error")
    run(shop, tmp_path / "2")
    prepared_rows(shop, "latest", None, tmp_path / "3", lambda *_: None)
    store.upload_directory("trainjobs/1/prepared", tmp_path / "3" / "prepared")
    log, file = RequestLog(store, shop.ledger), new_file(at)
    asked = [(WRITTEN, None), (None, digest_of_content(WRITTEN)), ("good", None), (None, "0" * 64)]
    log.write(
        file,
        [
            dict.fromkeys(COLUMNS)
            | {"id": row_id(f"{file}-{number}", 0), "time": at.isoformat(), "text": text}
            | {"digest": digest}
            for number, (text, digest) in enumerate(asked)
        ],
    )
    log.add_feedback([Feedback(request_id=f"{file}-{n}", label="good") for n in range(4)], at)
    who = ["ann", "r30", "r150", "r151", f"{file}-0.0", f"{file}-1.0"]
    wrote = [WRITTEN, "ann says", "too many of hers"]
    places = {"/quarantine/", "/readmissions/", "/requests/", "sources/", "trainjobs/", ".unread"}
    shown = traces(store, who, wrote)
    assert {each for each in places if any(each in key for key in shown)} == places
    report = forget(shop, "group", ["ann"], "asked to")
    assert (report.rows, report.lines, report.labels, report.recorded) == (3, 1, 2, 1)
    assert traces(store, who, wrote) == {}
    # Nobody else is forgotten: short contents and lines of others stay.
    left = log.read(at, at + timedelta(hours=1))
    assert left["id"].tolist() == [f"{file}-2.0", f"{file}-3.0"]
    assert left["label"].tolist() == ["good", "good"]
    rows = store.get("trainjobs/1/prepared/rows.parquet")
    vectors = load(store.get("trainjobs/1/prepared/embeddings.safetensors"))["vectors"]
    assert (pd.read_parquet(io.BytesIO(rows))["window"] == "2026-01-12").sum() == len(vectors)
    _, again, good = run(shop, tmp_path / "4")
    assert traces(store, who, wrote) == {}
    assert again.reasons["wrong-column-count"] == 1
    assert any("his" in each for each in listed(shop)["text"] if each)
    assert good["label"][good["id"] == "r200"].tolist() == ["good"]
    # Asked again, there is nothing left to take out.
    twice = forget(shop, "group", ["ann"], "asked to once more")
    assert (twice.kept_rows, twice.embeddings, twice.labels, twice.deleted) == (0, 0, 0, [])


def test_what_was_put_right_and_what_was_no_row_is_forgotten_too(shop, tmp_path):
    with (tmp_path / "rows.csv").open("a") as file:
        file.write("r900,one field too many,good,2026-01-13,ann,30,jp,odd\n")
        file.write("r901,one field too many,good,2026-01-13,annabel,30,jp,odd\n")
    run(shop, tmp_path / "1")
    readmit(shop, ["r151"], {"label": "good"}, "asked")
    readmit(shop, ["r200"], {"label": "good"}, "a typing error")
    report = forget(shop, "group", ["ann"], "asked to")
    assert (report.rows, report.lines, report.recorded) == (3, 1, 1)
    kept = Readmissions(home.store(), shop.ledger).until(2)
    assert sorted(len(each.changes) for each in kept.values()) == [0, 1]
    _, again, _ = run(shop, tmp_path / "2")
    assert again.reasons["wrong-column-count"] == 1
    (place,) = listed(shop)["id"][listed(shop)["reasons"] == "wrong-column-count"]
    assert forget(shop, "id", [place], "asked to").lines == 1
    _, again, _ = run(shop, tmp_path / "3")
    assert "wrong-column-count" not in again.reasons


def test_prepared_embeddings_stay_beside_their_rows(shop, tmp_path):
    folder = home.home() / "artifacts" / "1"
    prepared_rows(shop, "latest", None, folder, lambda *_: None)
    before = pd.read_parquet(folder / "prepared" / "rows.parquet")
    vectors = load((folder / "prepared" / "embeddings.safetensors").read_bytes())["vectors"]
    by_id = dict(zip(before["id"], vectors.tolist(), strict=False))
    forget(shop, "id", ["r150"], "asked to")
    after = pd.read_parquet(folder / "prepared" / "rows.parquet")
    left = load((folder / "prepared" / "embeddings.safetensors").read_bytes())["vectors"]
    assert len(after) == len(before) - 1
    for id_, vector in zip(after["id"], left.tolist(), strict=False):
        assert by_id[id_] == vector


def test_models_that_may_have_learnt_from_the_rows_are_named(shop, tmp_path):
    store = home.store()
    plan, _, _ = run(shop, tmp_path / "1")
    at = f"{shop.ledger}/runs/run-1"
    store.put(f"{at}/resolve.json", json.dumps({"plan": plan.model_dump(mode="json")}).encode())
    store.put(f"{at}/register.json", json.dumps({"version": "3", "bundle": "b" * 64}).encode())
    groups = [f"c{number}" for number in range(120, 140)]
    tested = next(group for group in groups if is_test([group])[0])
    taught = next(group for group in groups if not is_test([group])[0])
    (learnt,) = forget(shop, "group", [taught], "asked to", dry_run=True).learnt
    assert (learnt.version, learnt.windows, learnt.shows) == ("3", ["2026-01-12"], False)
    assert forget(shop, "group", [tested], "asked to", dry_run=True).learnt == []


def test_what_was_forgotten_after_a_run_began_is_held_against_its_model(shop, tmp_path):
    store = home.store()
    plan, _, _ = run(shop, tmp_path / "1")
    content = {"plan": plan.model_dump(mode="json")}
    Records(store, shop.ledger, "run-1").write("resolve", content)
    assert forgotten_since(store, shop.ledger, "run-1") == ""
    groups = [f"c{number}" for number in range(120, 140)]
    tested = next(group for group in groups if is_test([group])[0])
    taught = next(group for group in groups if not is_test([group])[0])
    # It reads test rows all the same, and may go on writing them.
    assert forget(shop, "group", [tested], "asked to").unfinished == ["run-1"]
    assert forgotten_since(store, shop.ledger, "run-1") == ""
    report = forget(shop, "group", [taught], "asked to")
    assert any("run run-1 read them and has not ended" in line for line in summary(report))
    assert "(record 2)" in forgotten_since(store, shop.ledger, "run-1")
    Records(store, shop.ledger, "run-1").write("notify", {"result": "promoted"})
    assert forget(shop, "group", [taught], "asked to").unfinished == []
    # A run that begins now leaves them out.
    plan, _, _ = run(shop, tmp_path / "2")
    content = {"plan": plan.model_dump(mode="json")}
    Records(store, shop.ledger, "run-2").write("resolve", content)
    assert forgotten_since(store, shop.ledger, "run-2") == ""
    assert forgotten_since(store, shop.ledger, "unknown") == ""


def test_forgetting_that_is_broken_off_anywhere_is_done_by_doing_it_again(
    shop, tmp_path, monkeypatch
):
    path = tmp_path / "rows.csv"
    lines = path.read_text().splitlines(keepends=True)
    (hers,) = (line for line in lines if WRITTEN in line)
    odd = hers.replace(",good,", ",godo,").replace(",bad,", ",bda,")
    path.write_text("".join(odd if line == hers else line for line in lines))
    run(shop, tmp_path / "1")
    # Only the quarantine knows the row any more.
    path.write_text("".join(line for line in lines if line != hers))
    page = home.home() / "artifacts" / "page.txt"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f"one row was {WRITTEN}")
    put, left = LocalStore.put, [0]

    def broken_off(self, key, data):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        put(self, key, data)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "put", broken_off)
        for number in range(30):
            left[0] = number
            try:
                forget(shop, "group", ["ann"], "asked to")
                break
            except KeyboardInterrupt:
                continue
        else:
            pytest.fail("it never came to its end")
    assert traces(home.store(), ["ann", "r150"], [WRITTEN]) == {}
    assert not page.exists()


@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_name_is_nobody(shop, name):
    with pytest.raises(BadInput, match="an empty id names nobody"):
        forget(shop, "id", ["r1", name], "asked to")
    assert Erasures(home.store(), shop.ledger).last == 0


def test_the_command_forgets(shop, tmp_path, capsys):
    project = str(tmp_path / "shop.yaml")
    assert main(["forget", project, "--reason", "x"]) == 2
    assert main(["forget", project, "--id", "r1", "--group", "ann", "--reason", "x"]) == 2
    capsys.readouterr()
    assert main(["forget", project, "--id", "r1", "--reason", "asked to"]) == 0
    said = capsys.readouterr().out
    assert "1 rows are to be forgotten in windows 2026-01-05" in said
    assert "not reached: the source's own files" in said


def test_rows_of_a_group_are_not_forgotten_where_rows_have_none(shop, tmp_path, capsys):
    path = tmp_path / "shop.yaml"
    path.write_text(path.read_text().replace("    group: customer\n", ""))
    assert main(["forget", str(path), "--group", "ann", "--reason", "asked to"]) == 2
    assert "shop names no column of groups" in capsys.readouterr().err


# --- drafting ---


def test_the_drafted_section_passes_the_rows_it_was_drafted_from(shop, tmp_path):
    text = drafted(shop, "2026-01-05")
    path = tmp_path / "shop.yaml"
    content = path.read_text().replace("validate: {severity: {characters: error}}\n", "")
    path.write_text(content + text)
    project = load_project(str(path))
    rules = project.validate_.columns
    assert rules["land"].allowed == ("de", "jp")
    assert 0 <= (rules["age"].min or 0) < 20
    assert rules["age"].max is not None and rules["age"].max > 59
    _, report, _ = run(project, tmp_path / "1")
    assert not {code for code in report.reasons if code.startswith(("out-of", "not-allowed"))}


def test_what_could_not_be_read_is_in_quarantine_with_its_place(shop, tmp_path):
    with (tmp_path / "rows.csv").open("a") as file:
        file.write("r900,one field too many,good,2026-01-13,c9,30,jp,odd\n")
        file.write("r901,no such day,good,yesterday,c9,30,jp\n")
    _, report, _ = run(shop, tmp_path / "1")
    assert report.reasons["wrong-column-count"] == report.reasons["unreadable-time"] == 1
    assert report.rows_in == report.rows + report.quarantined
    rows = listed(shop).set_index("reasons")
    assert "one field too many" in rows.loc["wrong-column-count", "text"]
    name = rows.loc["unreadable-time", "id"]
    assert name.endswith("rows.csv#242")
    with pytest.raises(BadInput, match=r"could not be read: unreadable-time\. Mend"):
        readmit(shop, [name], {"label": "good"}, "why not")
