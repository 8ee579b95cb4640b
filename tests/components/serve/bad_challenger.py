"""A challenger's process that misbehaves in one way, or does well, as the first argument says.

It speaks the protocol by itself: nothing of the code that it is to break helps it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import struct
import sys
import time

GOOD = {
    "label": "positive",
    "confidence": 0.9,
    "probabilities": {"negative": 0.1, "positive": 0.9},
}
BAD = {
    "label": "negative",
    "confidence": 0.8,
    "probabilities": {"negative": 0.8, "positive": 0.2},
}


def main(way: str, channel: socket.socket) -> None:
    stream = channel.makefile("rwb")
    hoard = []

    def send(content: object) -> None:
        data = json.dumps(content).encode()
        stream.write(struct.pack(">I", len(data)) + data)
        stream.flush()

    if way == "crashes at load":
        os.kill(os.getpid(), signal.SIGSEGV)
    if way == "never loads":
        time.sleep(3600)
    if way == "finds no store":
        send({"ready": "StoreError: gone", "away": True})
        sys.exit(1)
    if way == "is too big":
        hoard.append(bytearray(os.urandom(1024)) * 400_000)
    send({"ready": True})
    draw = random.Random(0)
    while True:
        (length,) = struct.unpack(">I", stream.read(4))
        asked = json.loads(stream.read(length))
        answers = [GOOD if "good" in text else BAD for text in asked["contents"]]
        match way:
            case "answers the wrong labels":
                answers = [BAD if each is GOOD else GOOD for each in answers]
            case "crashes on request":
                os._exit(139)
            case "dies at random" if draw.random() < 0.1:
                os.kill(os.getpid(), signal.SIGKILL)
            case "raises":
                send({"id": asked["id"], "error": "RuntimeError: shapes do not match"})
                continue
            case "leaks":
                hoard.append(bytearray(os.urandom(1024)) * 20_000)
            case "hangs":
                time.sleep(3600)
            case "is slow":
                time.sleep(0.1)
            case "answers nothing but NaN":
                nan = float("nan")
                answers = [{**GOOD, "confidence": nan} for _ in answers]
            case "answers garbage":
                answers = [{"answer": 42} for _ in answers]
            case "answers numbers beyond all":
                answers = [{**GOOD, "confidence": 10**400} for _ in answers]
            case "answers under odd ids":
                send({"id": [asked["id"]], "predictions": answers})
                continue
            case "answers with odd places":
                send({"id": asked["id"], "predictions": answers, "truncated": [[0]]})
                continue
            case "answers too few":
                answers = answers[:-1]
            case "answers unknown labels":
                answers = [{**GOOD, "label": "purple"} for _ in answers]
            case "speaks another protocol":
                stream.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n")
                stream.flush()
                continue
            case "refuses everything":
                send({"id": asked["id"], "refused": "SourceError: no image"})
                continue
            case "answers others' requests":
                send({"id": asked["id"] + 1000, "predictions": answers})
                continue
        send({"id": asked["id"], "predictions": answers})


if __name__ == "__main__":
    main(sys.argv[1], socket.socket(fileno=int(sys.argv[sys.argv.index("--fd") + 1])))
