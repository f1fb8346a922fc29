"""
The Python side of an app that is not written in Python: the service's process, which trains.

python-for-android starts this file in a process of its own, with a JSON object as its argument: ``invite`` (an
``ftte://join?...`` link), ``data`` and ``storage`` (folders), ``socket`` (a path in the app's files) and, on a desktop,
``engine``. The app connects to the socket and reads events, a line of JSON each; a line ``{"predict": [[...]]}`` is
answered by a line ``{"prediction": [[...]]}``. ``{"stop": true}`` ends the training and the process.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from mobile_sdk import BlockingClient, FtteError
from mobile_sdk.events import Event, to_json


def main(argument: dict[str, Any]) -> None:
    """Train until the run has ended or the app says stop, telling every app that connects."""
    engine = argument.get("engine") or ("android" if sys.maxsize > 2**32 else "interpreted")
    client = BlockingClient.from_invite(
        argument["invite"], dataset=Path(argument["data"]), storage=argument["storage"], engine=engine
    )
    apps: list[socket.socket] = []
    path = Path(argument["socket"])
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as server, client:
        server.bind(str(path))
        server.listen()
        threading.Thread(target=accept, args=(server, client, apps), daemon=True).start()
        client.start(lambda event: tell(apps, event))
        client.wait()


def tell(apps: list[socket.socket], event: Event) -> None:
    """An app that has gone is forgotten."""
    for app in list(apps):
        if not send(app, to_json(event)):
            apps.remove(app)


def accept(server: socket.socket, client: BlockingClient, apps: list[socket.socket]) -> None:
    """Serve every app that connects, in a thread of its own."""
    while True:
        app, _ = server.accept()
        apps.append(app)
        threading.Thread(target=serve, args=(app, client), daemon=True).start()


def serve(app: socket.socket, client: BlockingClient) -> None:
    """Answer one app's requests, a line each."""
    for line in app.makefile():
        request = json.loads(line)
        if request.get("stop"):
            client.cancel()
        elif "predict" in request:
            try:
                answer: dict[str, Any] = {"prediction": client.predict(request["predict"]).tolist()}
            except FtteError as error:  # no version has come yet, say
                answer = {"error": str(error)}
            send(app, answer)


def send(app: socket.socket, message: dict[str, Any]) -> bool:
    """One line; false if the app has gone."""
    try:
        app.sendall(json.dumps(message).encode() + b"\n")
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main(json.loads(os.environ["PYTHON_SERVICE_ARGUMENT"]))
