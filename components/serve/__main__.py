"""Entry of the container: ``python -m components.serve --prefix sentiment``."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime

from pydantic import ValidationError

from components import home
from components.errors import TokiwaError
from components.ledger import Entry, Ledger
from components.serve import serve
from components.serve.config import ServeConfig
from components.store import open_store


def main() -> int:
    """Read the command line, serve until told to stop, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m components.serve",
        description="Serve the champion of a project over KServe's protocols V1 and V2.",
    )
    parser.add_argument("--store", help="object store; by default $TOKIWA_STORE")
    parser.add_argument("--prefix", required=True, help="the project's prefix in the store")
    parser.add_argument("--name", help="name of the model; by default the prefix's last part")
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    parser.add_argument("--port", type=_port, default=8080, help="default: %(default)s")
    parser.add_argument(
        "--poll-s",
        type=_seconds,
        default=1.0,
        help="seconds between looks at the ledger; default: %(default)s",
    )
    parser.add_argument(
        "--config",
        type=_config,
        default=ServeConfig(),
        help="the section serve of the project, as JSON",
    )
    parser.add_argument("--bundle", help="serve this bundle, whatever the ledger says: a canary")
    parser.add_argument("--version", default="", help="of that bundle, for answers and metrics")
    parser.add_argument(
        "--alias-of",
        default="",
        help="registered model in MLflow ($MLFLOW_TRACKING_URI) whose alias champion follows "
        "promotions that this server makes; default: none",
    )
    given = parser.parse_args()
    store = given.store or home.store_url()
    name = given.name or given.prefix.rpartition("/")[2]
    try:
        pinned = _pin(store, given.prefix, given.bundle, given.version) if given.bundle else None
        serve(
            store,
            given.prefix,
            name,
            given.host,
            given.port,
            given.poll_s,
            given.config,
            pinned,
            given.alias_of,
        )
    except TokiwaError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _pin(store_url: str, prefix: str, bundle: str, version: str) -> Entry:
    """Return an entry for a bundle that is no champion, under today's generation."""
    return Entry(
        number=max(1, Ledger(open_store(store_url), prefix).generation),
        action="publish",
        bundle=bundle,
        version=version,
        key="canary",
        by="canary",
        reason="",
        at=datetime.now(UTC).isoformat(),
    )


def _config(text: str) -> ServeConfig:
    try:
        return ServeConfig.from_json(text)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        raise argparse.ArgumentTypeError("; ".join(problems)) from error


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"a port is 0 to 65535, not {text}")
    return port


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"more than 0 seconds are needed, not {text}")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
