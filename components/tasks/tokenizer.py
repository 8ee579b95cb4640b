"""A bundle's tokenizer without transformers, which takes seconds and memory to import."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from components.errors import BundleError


class PlainTokenizer:
    """Answers like the tokenizer of transformers that wrote the folder, where we ask it."""

    def __init__(self, tokenizer: Any, pad_token: str | None, unk_token: str | None) -> None:
        """Wrap a ``tokenizers.Tokenizer``; see ``load``."""
        self._tokenizer = tokenizer
        self._tokenizer.no_padding()
        self.pad_token_id = _id_of(pad_token, tokenizer)
        self.unk_token_id = _id_of(unk_token, tokenizer)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the tokenizer that transformers saved in ``folder``.

        Raises:
            BundleError: it is of a kind that only transformers itself can run.
        """
        from tokenizers import Tokenizer

        file = folder / "tokenizer.json"
        if not file.is_file():
            raise BundleError(f"{folder} holds no {file.name}: its tokenizer needs transformers")
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        names = (config.get(name) for name in ("pad_token", "unk_token"))
        return cls(Tokenizer.from_file(str(file)), *map(_text_of, names))

    def __call__(
        self,
        texts: Sequence[str],
        *,
        add_special_tokens: bool = True,
        truncation: bool = False,
        max_length: int | None = None,
    ) -> dict[str, list[list[int]]]:
        """Return the token ids of each text as ``input_ids``."""
        if truncation:
            self._tokenizer.enable_truncation(max_length)
        else:
            self._tokenizer.no_truncation()
        encoded = self._tokenizer.encode_batch_fast(
            list(texts), add_special_tokens=add_special_tokens
        )
        return {"input_ids": [each.ids for each in encoded]}


def _text_of(token: Any) -> str | None:
    """Return a token that transformers wrote as text, or with more to say of it."""
    text: str | None = token["content"] if isinstance(token, dict) else token
    return text


def _id_of(token: str | None, tokenizer: Any) -> int | None:
    return None if token is None else tokenizer.token_to_id(token)
