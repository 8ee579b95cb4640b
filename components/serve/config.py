"""The section ``serve`` of a project file: how its champion is served."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from components.settings import Section
from components.signature import PublicKey


class BatchingConfig(Section):
    """How requests that wait at the same time are answered together."""

    max_rows: int = Field(default=32, ge=1, le=1024)
    """Texts or images of one batch."""
    max_wait_ms: float = Field(default=0.0, ge=0, le=1000)
    """How long an idle worker waits for more rows. They gather by themselves while all
    workers are busy; more than 0 pays on a GPU only."""
    max_batch_ms: float = Field(default=25.0, gt=0, le=10_000)
    """A batch takes no more rows than are answered in this time, as measured."""


class LimitsConfig(Section):
    """When a request is refused, beside the sizes that no server takes."""

    queue_rows: int = Field(default=1024, ge=1)
    """Rows that may wait; further requests get 429."""
    queue_ms: float = Field(default=100.0, gt=0)
    """A request that would wait longer than this, as measured, gets 429."""
    timeout_s: float = Field(default=30.0, gt=0, le=3600)
    """A body must have come, and an answer gone, after so many seconds."""
    drain_s: float = Field(default=0.0, ge=0, le=600)
    """After SIGTERM, so long answers go on while readiness says no; a balancer needs the
    time to look elsewhere."""


class RequestLogConfig(Section):
    """Which requests are kept in the store, for ``monitoring`` and for labels to come."""

    sample: float = Field(default=0.0, ge=0, le=1)
    """Share of the requests; none by default, for what people ask may be personal."""
    inputs: Literal["whole", "hash", "none"] = "whole"
    """What is kept of a text or an image: a hash tells repetitions and no more."""
    flush_s: float = Field(default=10.0, gt=0, le=3600)
    """A file is written so often, or sooner when it has ``file_rows``."""
    file_rows: int = Field(default=5000, ge=1, le=1_000_000)
    """Rows of one Parquet file."""
    queue_files: int = Field(default=4, ge=1, le=1000)
    """Files that may wait for a slow store; beyond, rows are dropped and counted."""


class AccessConfig(Section):
    """Who may ask; everybody who can reach the port, if nothing is said."""

    tokens_file: str = ""
    """A file with one bearer token a line, read again when it changes; ``#`` after a space
    begins a note."""
    jwks_file: str = ""
    """The keys of an OpenID provider as JSON (RFC 7517), read again when it changes: tokens
    that it signed are let in."""
    audience: str = ""
    """What such a token must be meant for."""
    issuer: str = ""
    """Who must have issued it."""

    @property
    def is_open(self) -> bool:
        """Whether everybody may ask who can reach the port."""
        return not (self.tokens_file or self.jwks_file)

    @model_validator(mode="after")
    def _signed_tokens_are_checked_wholly(self) -> AccessConfig:
        if self.jwks_file and not (self.audience and self.issuer):
            raise ValueError("jwks_file needs audience and issuer")
        if not self.jwks_file and (self.audience or self.issuer):
            raise ValueError("audience and issuer need jwks_file")
        return self


class CostConfig(Section):
    """What a prediction costs."""

    price_per_hour: float = Field(default=0.0, ge=0)
    """Of one device (a core, or a GPU), in whatever currency."""


class ServeConfig(Section):
    """Section ``serve``."""

    trusted_keys: tuple[PublicKey, ...] = ()
    """Public keys (Ed25519, PEM) of which one must have signed what answers; by default those of
    ``deploy``. All bundles are good where none is named."""
    form: Literal["fastest", "int8", "onnx", "safetensors"] = "fastest"
    """What answers; ``fastest`` of what the bundle carries."""
    grpc_port: int = Field(default=0, ge=0, le=65535)
    """Port of protocol V2 over gRPC; 0 is off."""
    batching: BatchingConfig = BatchingConfig()
    limits: LimitsConfig = LimitsConfig()
    requests: RequestLogConfig = RequestLogConfig()
    access: AccessConfig = AccessConfig()
    cost: CostConfig = CostConfig()
