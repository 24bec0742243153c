#!/usr/bin/env python3
"""How fast pages are in a headless Chromium: speed.py PAGE.html… prints, for each, seconds until it has been drawn, and milliseconds
until the slowest of some clicks on tokens and choices of layers and heads has: from the event to the frame after it.
"""
import sys
from pathlib import Path

import browser as chromium

CLICK = """new Promise((done) => { const e = %s, begin = performance.now(); %s;
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - begin))); })"""
TOKEN = "[...document.querySelectorAll('.token')].at(%d)"


def clicks(page):
    yield from (CLICK % (TOKEN % i, "e.dispatchEvent(new MouseEvent('click', {bubbles: true}))") for i in (0, -1, 100, -50))
    for name in ("layer", "head"):
        for index in (0, 1, -1):
            yield CLICK % (f"document.getElementById('{name}')", f"e.value = [...e.options].at({index}).value; e.dispatchEvent(new Event('change'))")
    yield CLICK % ("document.getElementById('token')", "e.value = 0; e.dispatchEvent(new Event('change'))")
    yield CLICK % ("document.getElementById('token')", "e.value = e.max; e.dispatchEvent(new Event('change'))")
    yield CLICK % ("document.getElementById('strip')", "e.dispatchEvent(new MouseEvent('click', {bubbles: true}))")


def main():
    with chromium.Browser() as browser:
        for path in sys.argv[1:]:
            pages = [browser.open(path) for _ in range(3)]
            slowest = max(pages[-1].run(script) for script in clicks(pages[-1]))
            print(f"{Path(path).name}: {Path(path).stat().st_size / 1e6:.2f} MB, drawn after {min(p.seconds for p in pages):.2f} s, slowest click {slowest:.0f} ms")


if __name__ == "__main__":
    main()
