"""Where rows come from: one file per kind of source.

A source answers which rows are in a window, and what is known of them without reading them
twice. ``resolve`` asks it for fingerprints, ``ingest`` and ``collect`` for rows. All kinds
are tables (``reading.py``): a kind lists them with their versions and reads one; that what
is new is read, kept, sorted and fingerprinted is the same for all.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, TypeAdapter

from components.sources.files import FilesConfig, FilesSource
from components.sources.http import HttpConfig, HttpSource
from components.sources.kafka import KafkaConfig, KafkaSource
from components.sources.reading import TableSource as Source
from components.sources.requests import RequestsConfig, RequestsSource
from components.sources.s3 import S3Config, S3Source
from components.sources.sql import SqlConfig, SqlSource
from components.store import Store

__all__ = ["SOURCES", "Source", "SourceConfig", "open_source", "parse_source"]


def _files_by_default(given: Any) -> Any:
    return {"kind": "files", **given} if isinstance(given, dict) else given


SourceConfig = Annotated[
    Annotated[
        FilesConfig | S3Config | SqlConfig | HttpConfig | KafkaConfig | RequestsConfig,
        Field(discriminator="kind"),
    ],
    BeforeValidator(_files_by_default),
]
"""What the ``source`` section of a project may be."""

SOURCES: dict[str, type[Source]] = {
    "files": FilesSource,
    "s3": S3Source,
    "sql": SqlSource,
    "http": HttpSource,
    "kafka": KafkaSource,
    "requests": RequestsSource,
}
"""Kind of source to its class. To add one: a file here and two lines."""

_SOURCE: TypeAdapter[SourceConfig] = TypeAdapter(SourceConfig)


def parse_source(text: str) -> SourceConfig:
    """Return the source in a JSON string; pydantic's ``ValidationError`` names every problem."""
    return _SOURCE.validate_json(text)


def open_source(config: SourceConfig, store: Store | None = None) -> Source:
    """Return the source that a project's ``source`` section describes.

    Args:
        config: the section.
        store: keeps what was read, so that the next to open the source reads what is new.

    Raises:
        ConfigError: the project does not want its rows in that store.
    """
    return SOURCES[config.kind](config, store)
