"""Headless Chromium, driven through a pipe by its DevTools protocol, without further packages."""

import base64
import contextlib
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
EXECUTABLE = next(filter(None, map(shutil.which, NAMES)), None)
OPTIONS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe"]
OPTIONS += ["--no-first-run", "--disable-extensions", "--disable-background-networking", "--disable-dev-shm-usage"]


class Browser:
    """One page. ``errors`` are its console errors and exceptions, ``requests`` the addresses that it asked for."""

    def __init__(self, size=(1320, 1000)):
        self.errors, self.requests = [], []
        self._ids, self._buffer, self._answers = itertools.count(1), b"", {}
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        command = [EXECUTABLE, *OPTIONS, f"--user-data-dir={self._profile.name}", f"--window-size={size[0]},{size[1]}"]

        def connect():  # Chromium reads descriptor 3 and writes to descriptor 4
            ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_browser, from_browser)]
            for descriptor, end in zip((3, 4), ends):
                os.dup2(end, descriptor)

        self._process = subprocess.Popen(
            [*command, "about:blank"],
            preexec_fn=connect,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = None
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def open(self, url):
        self._loaded = False
        self._call("Page.navigate", url=url)
        end = time.monotonic() + 60
        while not self._loaded:
            self._receive(end)

    def evaluate(self, expression):
        """Value of a JavaScript expression; of a promise, the value that it gets."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def screenshot(self, path, full=True):
        answer = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=full)
        path.write_bytes(base64.b64decode(answer["data"]))

    def close(self):
        with contextlib.suppress(OSError):
            self._send({"id": next(self._ids), "method": "Browser.close"})
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)
        self._profile.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.close()

    def _send(self, message):
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]

    def _call(self, method, **params):
        message = {"id": next(self._ids), "method": method, "params": params}
        if getattr(self, "_session", None):
            message["sessionId"] = self._session
        self._send(message)
        end = time.monotonic() + 60
        while message["id"] not in self._answers:
            self._receive(end)
        answer = self._answers.pop(message["id"])
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _receive(self, end):
        """Waits for the next message and takes it; raises when the time is over."""
        while b"\0" not in self._buffer:
            if not select.select([self._in], [], [], max(0, end - time.monotonic()))[0]:
                raise TimeoutError("the browser did not answer in 60 s")
            chunk = os.read(self._in, 1 << 16)
            if not chunk:
                raise RuntimeError("the browser ended")
            self._buffer += chunk
        text, self._buffer = self._buffer.split(b"\0", 1)
        message = json.loads(text)
        method, params = message.get("method"), message.get("params", {})
        if "id" in message:
            self._answers[message["id"]] = message
        elif method == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            self.errors.append(str(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Page.loadEventFired":
            self._loaded = True
