"""Why a request gets no answer."""

from __future__ import annotations


class Refused(Exception):
    """A request gets no prediction.

    Attributes:
        status: of HTTP.
        retry_after_s: when to try again, for a server that is too busy.
    """

    def __init__(self, status: int, sentence: str, retry_after_s: int | None = None) -> None:
        """Take the HTTP status and a sentence for the client."""
        super().__init__(sentence)
        self.status = status
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """What HTTP says of it beside the status."""
        if self.status == 401:
            return {"www-authenticate": "Bearer"}
        return {} if self.retry_after_s is None else {"retry-after": str(self.retry_after_s)}
