"""Ten corrections by keyboard on the page of an audit, in a browser, saved, applied and trained on.

    python benchmarks/annotating.py --workdir=FOLDER

A generated shop is written as a table with predictions, audited, and its page is opened from the
file in headless Chromium, which keys are sent to through the DevTools protocol. Ten labels are set,
one of them undone and set again, the page is loaded again to see what it kept, and the corrections
are saved as a download. They are applied, and the corrected table is read and trained on. Leaves
screenshots in FOLDER. Writes benchmarks/results/annotating.json.
"""

import argparse
import base64
import csv
import http.client
import json
import os
import secrets
import shutil
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from sie_jax.data.sources import synthetic
from sie_jax.files import write_json

RESULTS = Path(__file__).parent / "results" / "annotating.json"
LABELS = ("I", "C", "S", "E")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
CORRECTIONS = 10


class Tab:
    """One page of a browser, by the DevTools protocol over a WebSocket (RFC 6455)."""

    def __init__(self, address: str) -> None:
        host, path = address.removeprefix("ws://").split("/", 1)
        name, port = host.split(":")
        self._socket = socket.create_connection((name, int(port)), timeout=60)
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        self._socket.sendall(
            f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += self._socket.recv(1)
        self._number = 0

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Sends one command and gives its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        self._send(json.dumps(message).encode())
        answer = json.loads(self._receive())
        while answer.get("id") != self._number:  # an event
            answer = json.loads(self._receive())
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def value(self, expression: str) -> Any:
        """What a JavaScript expression gives."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return found["result"].get("value")

    def key(self, key: str, *, control: bool = False) -> None:
        """Presses a key."""
        text = {"text": key} if len(key) == 1 and not control else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, modifiers=2 * control, **text)

    def screenshot(self, path: Path) -> None:
        """Leaves what is seen as a PNG file."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def _send(self, data: bytes) -> None:
        mask = secrets.token_bytes(4)
        size = len(data)
        head = struct.pack("!BB", 0x81, 0x80 | size) if size < 126 else b""
        head = head or struct.pack("!BBH", 0x81, 0x80 | 126, size)
        masked = bytes(one ^ mask[at % 4] for at, one in enumerate(data))
        self._socket.sendall(head + mask + masked)

    def _receive(self) -> bytes:
        """The payload of the next message, whose frames are put together."""
        found, last = b"", False
        while not last:
            first, second = self._exactly(2)
            size = second & 0x7F
            if size > 125:
                size = int.from_bytes(self._exactly(2 if size == 126 else 8), "big")
            last = bool(first & 0x80)
            found += self._exactly(size)
        return found

    def _exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            found += self._socket.recv(size - len(found))
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--browser", default=next(filter(shutil.which, BROWSERS), ""))
    options = parser.parse_args()
    folder = options.workdir.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    truth = write_table(folder / "pairs.csv")
    flags = [f"--pairs={folder / 'pairs.csv'}", f"--labels={','.join(LABELS)}"]
    flags += ["--example_id=example_id", "--query_id=query_id", "--split=split"]
    say(run("-m", "sie_jax.audit", *flags, f"--output={folder / 'audit.csv'}", "--top=200"))
    with open(folder / "audit.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[:CORRECTIONS]
    wanted = [LABELS[truth[row["example_id"]]] for row in rows]
    saved = annotated(options.browser, folder, wanted)
    with open(saved, encoding="utf-8", newline="") as file:
        found = {row["example_id"]: row["corrected_label"] for row in csv.DictReader(file)}
    assert found == {row["example_id"]: label for row, label in zip(rows, wanted, strict=True)}
    changed = sum(row["label"] != label for row, label in zip(rows, wanted, strict=True))
    corrected = folder / "corrected.csv"
    said = run("-m", "sie_jax.audit", *flags, f"--apply={saved}", f"--output={corrected}")
    assert f"{changed} labels changed, {CORRECTIONS - changed} confirmed" in said, said
    shutil.rmtree(folder / "run", ignore_errors=True)
    trained = run(*training(corrected, folder / "run"))
    assert (folder / "run" / "metrics.json").is_file(), trained
    results = {
        "corrections": CORRECTIONS,
        "changed": changed,
        "confirmed": CORRECTIONS - changed,
        "rows_on_page": 200,
        "page_bytes": (folder / "audit.html").stat().st_size,
        "browser": subprocess.check_output([options.browser, "--version"], text=True).strip(),
        "device": "cpu",
    }
    write_json(RESULTS, results)
    say(json.dumps(results, indent=2))


def write_table(path: Path) -> dict[str, int]:
    """Leaves a shop with a tenth of its labels wrong; gives the true grade of each pair.

    The predictions are the truth, blurred, so that the page has something to say.
    """
    table = synthetic.read(queries=60, noise=0.1, dirt=0.0, seed=3).table.to_pylist()
    rng = np.random.default_rng(0)
    truth = {}
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        fields = ("example_id", "query_id", "query", "title", "text", "label", "split")
        writer.writerow([*fields, *(f"probability_{label}" for label in LABELS)])
        for row in table:
            truth[row["example_id"]] = LABELS.index(row["truth"])
            chances = rng.dirichlet(0.3 + 3 * np.eye(4)[truth[row["example_id"]]])
            writer.writerow([row[field] for field in fields] + chances.tolist())
    return truth


def annotated(browser: str, folder: Path, wanted: list[str]) -> Path:
    """Sets these labels on the page by keyboard; gives the file that the browser downloaded."""
    profile = folder / "profile"
    shutil.rmtree(profile, ignore_errors=True)
    saved = folder / "audit.corrections.csv"
    saved.unlink(missing_ok=True)
    flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0")
    process = subprocess.Popen(
        [browser, *flags, f"--user-data-dir={profile}", "--window-size=1000,900", "about:blank"],
        stderr=subprocess.DEVNULL,
    )
    try:
        port_file = profile / "DevToolsActivePort"
        wait(lambda: port_file.is_file() and port_file.read_text().count("\n") > 0)
        connection = http.client.HTTPConnection("127.0.0.1", int(port_file.read_text().split()[0]))
        connection.request("GET", "/json/list")
        pages = json.loads(connection.getresponse().read())
        tab = Tab(next(one for one in pages if one["type"] == "page")["webSocketDebuggerUrl"])
        tab.call("Page.enable")
        tab.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
        load(tab, folder)
        tab.screenshot(folder / "first.png")
        tab.key("ArrowDown")
        assert progress(tab).startswith("2 of 200; 0 decided")
        tab.key("k")
        for label in wanted[:5]:
            tab.key(str(1 + LABELS.index(label)))
        tab.key("u")
        assert progress(tab).startswith("5 of 200; 4 decided"), progress(tab)
        load(tab, folder)
        assert progress(tab).startswith("5 of 200; 4 decided"), progress(tab)  # it was kept
        for label in wanted[4:]:
            tab.key(label.lower())
        assert progress(tab).startswith(f"11 of 200; {CORRECTIONS} decided"), progress(tab)
        tab.key("k")
        tab.screenshot(folder / "decided.png")
        tab.key("s", control=True)
        wait(saved.is_file)
        tab.screenshot(folder / "saved.png")
        size = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
        tab.call("Emulation.setDeviceMetricsOverride", **size)
        tab.screenshot(folder / "narrow.png")
        tab.call("Browser.close")
        process.wait(60)
    finally:
        process.kill()
    return saved


def load(tab: Tab, folder: Path) -> None:
    tab.call("Page.navigate", url=(folder / "audit.html").as_uri())
    wait(lambda: progress(tab))


def progress(tab: Tab) -> str:
    return tab.value("document.getElementById('progress')?.textContent") or ""


def wait(done: Any) -> None:
    """Until something is there; a minute at most."""
    for _ in range(600):
        if done():
            return
        time.sleep(0.1)
    raise TimeoutError("the browser does not answer")


def training(table: Path, workdir: Path) -> list[str]:
    """The command that trains the smallest model on a table."""
    config = {
        "data.path": table,
        "data.table.labels": ",".join(LABELS),
        "data.columns.example_id": "example_id",
        "data.columns.query_id": "query_id",
        "data.columns.split": "split",
        "model.hidden_size": 16,
        "model.num_attention_heads": 2,
        "model.num_hidden_layers": 1,
        "model.intermediate_size": 16,
        "pretrain.steps": 0,
        "train.folds": 0,
        "train.epochs": 1,
        "train.seeds": 1,
        "train.batch_size": 32,
    }
    script = Path(__file__).parents[1]
    flags = [f"--config.{name}={value}" for name, value in config.items()]
    file = script / "configs" / "table.py"
    return [str(script / "train.py"), f"--config={file}", f"--workdir={workdir}", *flags]


def run(*words: str) -> str:
    """What a command of this package prints."""
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, *words],
        env=os.environ | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
