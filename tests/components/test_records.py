from __future__ import annotations

from components.records import Records


def test_reads_what_the_steps_of_this_run_wrote(store):
    records = Records(store, "projects/demo", "run-1")
    assert records.read() == {}
    records.write("resolve", {"window": "2026-01-05", "rows": 3})
    records.write("deploy", {"reason": "良い \u2028", "nested": {"a": [1, None]}})
    assert records.read() == {
        "resolve": {"window": "2026-01-05", "rows": 3},
        "deploy": {"reason": "良い \u2028", "nested": {"a": [1, None]}},
    }


def test_a_step_that_is_retried_leaves_one_record(store):
    records = Records(store, "projects/demo", "run-1")
    records.write("deploy", {"try": 1})
    records.write("deploy", {"try": 2})
    assert records.read() == {"deploy": {"try": 2}}


def test_runs_and_projects_do_not_see_each_other(store):
    Records(store, "projects/demo", "run-1").write("resolve", {"is": "mine"})
    for prefix, run in [
        ("projects/demo", "run-10"),
        ("projects/demo", "run"),
        ("projects/demo-2", "run-1"),
    ]:
        assert Records(store, prefix, run).read() == {}


def test_foreign_objects_are_left_alone(store):
    records = Records(store, "p", "run")
    records.write("resolve", {})
    store.put("p/runs/run/notes.txt", b"\xff")
    assert records.read() == {"resolve": {}}


def test_the_record_of_one_step_is_empty_if_it_left_none(store):
    records = Records(store, "projects/demo", "run-1")
    assert records.of("resolve") == {}
    records.write("resolve", {"now": "2026-01-12"})
    assert records.of("resolve") == {"now": "2026-01-12"}
