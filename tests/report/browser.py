"""A page in a headless Chromium, driven through its debugging pipe (the DevTools protocol), with nothing but Python's own
library.

    with Browser() as browser:
        page = browser.open(path, width=800, dark=True)
        page.run("document.title")
        page.screenshot("shot.png")
        page.complaints     # what the console said, and requests that left the file
"""
import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path


def find():
    """Where Chromium is; None if it is not installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        to_read, self.to = os.pipe()
        self.answers, to_write = os.pipe()
        arguments = ["--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run",
                     "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update",
                     f"--user-data-dir={self.folder.name}", "about:blank"]
        # Chromium reads from descriptor 3 and writes to 4; the shell puts them there.
        self.process = subprocess.Popen(["bash", "-c", f'exec "$@" 3<&{to_read} 4>&{to_write}', "-", find(), *arguments],
                                        pass_fds=(to_read, to_write), stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(to_write)
        self.number, self.held, self.events = 0, b"", []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.call("Browser.close", {})
            self.process.wait(20)
        except (OSError, TimeoutError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        os.close(self.to)
        os.close(self.answers)
        shutil.rmtree(self.folder.name, ignore_errors=True)

    def read(self, deadline):
        while b"\0" not in self.held:
            if not select.select([self.answers], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError("Chromium does not answer")
            part = os.read(self.answers, 1 << 20)
            if not part:
                raise OSError("Chromium has ended")
            self.held += part
        line, self.held = self.held.split(b"\0", 1)
        return json.loads(line)

    def call(self, method, parameters, session=None, patience=120):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.to, data):]
        deadline = time.monotonic() + patience
        while True:
            answer = self.read(deadline)
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            if "method" in answer:
                self.events.append(answer)

    def open(self, path, width=1000, height=900, dark=False):
        return Page(self, Path(path).resolve().as_uri(), width, height, dark)


class Page:
    def __init__(self, browser, address, width, height, dark):
        self.browser, self.address = browser, address
        target = browser.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        self.session = browser.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        begin = time.monotonic()
        self.call("Page.navigate", url=address)
        # Until it has been drawn.
        while self.run("document.readyState") != "complete" or self.run("location.href") != address:
            time.sleep(0.02)
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")
        self.seconds = time.monotonic() - begin

    def call(self, method, **parameters):
        return self.browser.call(method, parameters, self.session)

    def run(self, script):
        """The value of an expression; a promise's if it is one."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script[:80]}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def key(self, name):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name)

    def screenshot(self, path, scale=1):
        """The whole page; a .webp is a small file, anything else a PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        kind = {"format": "webp", "quality": 40} if str(path).endswith(".webp") else {"format": "png"}
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": scale}
        Path(path).write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip, **kind)["data"]))

    @property
    def complaints(self):
        self.run("1")  # what was said before has come
        said = []
        for event in self.browser.events:
            if event.get("sessionId") != self.session:
                continue
            method, p = event["method"], event["params"]
            if method == "Runtime.consoleAPICalled":
                said.append("console: " + str([a.get("value") for a in p["args"]]))
            elif method == "Runtime.exceptionThrown":
                said.append("exception: " + p["exceptionDetails"].get("exception", {}).get("description", p["exceptionDetails"]["text"]))
            elif method == "Log.entryAdded":
                said.append("log: " + p["entry"]["text"])
            elif method == "Network.requestWillBeSent" and p["request"]["url"] not in (self.address, "about:blank"):
                said.append("request: " + p["request"]["url"])
        return said
