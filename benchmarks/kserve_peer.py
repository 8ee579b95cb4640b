"""What most people would write: KServe's server with a transformers model in torch.

``python -m benchmarks.kserve_peer PORT FOLDER``, where the folder holds any encoder of
transformers.
"""

from __future__ import annotations

import sys
from typing import Any


def main() -> None:
    """Serve until told to stop."""
    port, folder = sys.argv[1:]
    sys.argv = [sys.argv[0], f"--http_port={port}", "--enable_grpc=false"]
    import kserve
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    class Peer(kserve.Model):
        def load(self) -> bool:
            self.tokenizer = AutoTokenizer.from_pretrained(folder)
            self.model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
            self.ready = True
            return True

        def predict(
            self, payload: dict[str, Any], headers: dict[str, str] | None = None
        ) -> dict[str, Any]:
            inputs = self.tokenizer(
                payload["instances"],
                padding=True,
                truncation=True,
                max_length=128,
                return_tensors="pt",
            )
            with torch.inference_mode():
                answers = self.model(**inputs).logits.softmax(-1)
            return {"predictions": answers.tolist()}

    model = Peer("movies")
    model.load()
    kserve.ModelServer().start([model])


if __name__ == "__main__":
    main()
