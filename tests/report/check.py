#!/usr/bin/env python3
"""Reports as people meet them: tests/report/check.py CLSPLAT [FOLDER]. Every kind is made, given to tidy, and opened in a headless
Chromium, where tokens, layers and heads are clicked through and the numbers compared with --json. With FOLDER, screenshots at
three widths and in the dark are left there; those in its folder webp are small: some are
kept in tests/report/shots, for people to look at. Skips what is not installed, and says so.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import browser as chromium  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "demos" / "bytelm-4m"
HOSTILE = (b"<script>alert(1)</script><img src=x onerror=alert(2)>\"'`&amp; </script><!-- \x00\x01\x1b[31m \xff\xfe\xc3( \xf0\x9f\x98 "
           + "\u202eright\u202c \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u2028 \ufffe {{7*7}} %s%n".encode() + b"\r\n\t" + b"x" * 200)
passed = failed = 0


def check(good, what):
    global passed, failed
    if good:
        passed += 1
    else:
        failed += 1
        print(f"{what}: FAIL")


def save_tensors(path, tensors):
    head, at, data = {}, 0, b""
    for name, x in tensors.items():
        bytes_ = np.ascontiguousarray(x, dtype="<f4").tobytes()
        head[name] = {"dtype": "F32", "shape": list(x.shape), "data_offsets": [at, at + len(bytes_)]}
        at += len(bytes_)
        data += bytes_
    words = json.dumps(head).encode()
    path.write_bytes(len(words).to_bytes(8, "little") + words + data)


def make(clsplat, out, *arguments):
    # Names as a person would give them: they are a page's title.
    names = [os.path.relpath(a, out.parent) if isinstance(a, Path) else str(a) for a in arguments]
    done = subprocess.run([clsplat, "report", *names, "-o", out.name, "--json"], capture_output=True, check=False, cwd=out.parent)
    check(done.returncode == 0, f"report {arguments}: {done.stderr.decode(errors='replace')[-300:]}")
    return json.loads(done.stdout) if done.returncode == 0 else None


def tidy(path):
    if not shutil.which("tidy"):
        return
    done = subprocess.run(["tidy", "-q", "-e", "-utf8", path], capture_output=True, check=False)
    check(done.stderr == b"", f"tidy {path.name}: {done.stderr[:400].decode(errors='replace')}")


def near(a, b, slack):
    return abs(a - b) <= slack * max(1, abs(b))


def table(page, caption):
    """The cells of the rows of a table, by how its caption begins."""
    return page.run(f"""[...document.querySelectorAll('table')].filter((t) => t.caption && t.caption.textContent.startsWith({json.dumps(caption)}))
        .map((t) => [...t.tBodies[0].rows].map((r) => [...r.cells].map((c) => c.textContent.trim())))""")


def hints(page, title):
    """What a pointer over the shapes of a picture is told, by the picture's title."""
    return page.run(f"""[...document.querySelectorAll('svg')].filter((s) => s.querySelector('title').textContent.startsWith({json.dumps(title)}))
        .flatMap((s) => [...s.querySelectorAll('* > title')].slice(1).map((t) => t.textContent))""")


def same(words, value):
    """Whether words are a number to as many digits as they have."""
    digits = words.replace("%", "").replace(",", "").strip()
    if value is None:
        return words in ("null", "\u2013", "rejected", "")
    unit = 10.0 ** -len(digits.split("e")[0].partition(".")[2]) * 10.0 ** float(digits.partition("e")[2] or 0)
    return abs(float(digits) - value) <= 0.51 * unit + 2e-5 * abs(value)


def compare_story(page, name, numbers):
    """Layers and heads, time, memory and facts: the page's tables and pictures against --json."""
    heads = table(page, "Every layer and head")[0]
    for cells, h in zip(heads, numbers["heads_of_layers"]):
        check(all(same(c, v) for c, v in zip(cells[1:5], (100 * h["exact_keys_share"], h["error_estimate"], h["error"], h["entropy"]))), f"{name}: {cells}, not {h}")
    check(len(heads) == numbers["layers"] * numbers["heads"], f"{name}: {len(heads)} heads")
    kernels = table(page, "Time of every kernel")[0]
    check([(c[0], int(c[1])) for c in kernels] == [(k["kernel"], k["launches"]) for k in numbers["kernels"]] and all(same(c[2], k["seconds"]) for c, k in zip(kernels, numbers["kernels"])),
          f"{name}: kernels {kernels[:2]}, not {numbers['kernels'][:2]}")
    flame = dict(h.rsplit(": ", 1) for h in hints(page, "Where the time goes"))
    check(all(same(flame[k["kernel"]].split(" s")[0], k["seconds"]) for k in numbers["kernels"]), f"{name}: flame chart {list(flame.items())[:3]}")
    memory = dict(h.rsplit(": ", 1) for h in hints(page, "Device memory"))
    check(list(memory) == [m["name"] for m in numbers["memory"]] and all(same(memory[m["name"]].split(" MiB")[0], m["bytes"] / 2**20) for m in numbers["memory"]), f"{name}: memory {memory}")
    facts = dict(page.run("[...document.querySelectorAll('.facts li')].map((l) => [l.querySelector('span').textContent, l.lastChild.textContent.trim()])"))
    share = numbers["exact_keys_share"]
    wanted = {"bits per byte": numbers["bits_per_byte"], "seconds": None, "device memory, MiB": numbers["device_memory_peak"] / 2**20,
              "keys one by one": None if share is None or not numbers["chunk"] else 100 * share}
    check(all(same(facts[k], v) for k, v in wanted.items() if v is not None), f"{name}: facts {facts}, not {wanted}")


def compare_training(page, numbers):
    log = numbers["log"]
    rows = [row for rows in table(page, "") for row in rows]
    by_step = {line["step"]: line for line in log}
    check(len(rows) > 300 and all(same(v, by_step[int(cells[0])].get(k)) for cells in rows for k, v in zip(
        ("step", "seconds", "goal", "loss", "bits_per_byte", "validation_bits_per_byte", "rate", "norm", "tokens_per_second"), cells) if v != "\u2013"), f"training: {rows[:2]}")
    svg = page.run("[...document.querySelectorAll('svg > title')].map((t) => t.textContent)")
    check(svg == ["Loss", "Learning rate", "Gradients", "Speed"], f"training: pictures {svg}")
    check(page.run("document.querySelectorAll('svg')[0].textContent").count("validation") >= 1, "training: no validation curve")


def compare_history(page, numbers):
    log, rows = numbers["log"], [row for rows in table(page, "") for row in rows]
    check(len(rows) == len(log), f"history: {len(rows)} rows of {len(log)}")
    for cells, line in zip(rows, log):
        check(cells[1] == line["decision"] and cells[2] == ("yes" if line["kept"] else "no") and same(cells[9], line["error_before"]) and same(cells[10], line["error_after"]) and
              same(cells[3], line["layer"]) and all(name in cells[11] for name in line["reason"]), f"history: {cells}, not {line}")
    drawn = hints(page, "Decisions that were kept")
    last = {h.split(":")[0]: int(h.split(": ")[1].split(" at ")[0]) for h in drawn}
    check(all(last[d] == sum(x["kept"] and x["decision"] == d for x in log) for d in ("mitosis", "birth", "death", "merge")), f"history: summed up {last}")
    heads = {f"head {x['head']}, layer {x['layer']}" for x in log if x["kept"]}
    check({h.split(":")[0] for h in hints(page, "Error after each")} == heads, f"history: not a curve for each of {heads}")


def compare_splats(page, numbers):
    levels, splats = table(page, "The levels")[0], table(page, "The splats of this head")
    for cells, x in zip(levels, numbers["levels"]):
        check(cells[0] == x["name"] and int(cells[1]) == x["splats"] and same(cells[2], x["weight"]) and same(cells[3], 100 * x["contribution"]), f"splats: {cells}, not {x}")
    for head, rows in enumerate(splats):
        own = [x for x in numbers["splats"] if x["head"] == head]
        check(len(rows) == len(own) and all(same(c[2], 100 * x["amplitude"]) and abs(float(c[3]) - x["temperature"]) <= 1e-3 * x["temperature"] and abs(float(c[4]) - x["width"]) <= 1e-3 * x["width"]
                                            for c, x in zip(rows, own)), f"splats of head {head}: {rows[:1]}, not {own[:1]}")
    clouds = page.run("[...document.querySelectorAll('#splats svg')].map((s) => s.querySelectorAll('ellipse').length)")
    check(clouds == [2 * len(rows) for rows in splats], f"splats: {clouds} ellipses")


def compare_tuning(page, numbers):
    tables, titles = table(page, "What was tried"), page.run("[...document.querySelectorAll('h2')].map((h) => h.textContent)")
    check(titles == [g["name"] for g in numbers["groups"]], f"tuning: {titles}")
    for i, (rows, group) in enumerate(zip(tables, numbers["groups"])):
        tries = group["candidates"]
        check(len(rows) == len(tries) == group["tried"], f"tuning {i}: {len(rows)} rows")
        for cells, x in zip(rows, tries):
            check(cells[1:3] == [x["variant"], x["parameters"]] and (cells[3] == "rejected") == (x["seconds"] is None), f"tuning {i}: {cells}, not {x}")
            check(x["seconds"] is None or abs(float(cells[3]) - 1e3 * x["seconds"]) <= 1e-3 * 1e3 * x["seconds"], f"tuning {i}: {cells[3]} ms, not {x['seconds']}")
            check(cells[6] == ("champion" if x["champion"] else "neighbour" if x["neighbour"] else ""), f"tuning {i}: {cells[6]!r}, not {x}")
        check(sum(x["champion"] for x in tries) == 1, f"tuning {i}: champions")
    champion = next(x for x in numbers["groups"][0]["candidates"] if x["champion"])
    if champion["parameters"] == "-":
        return
    told = page.run("""[...document.querySelectorAll('svg')].filter((s) => s.querySelector('title').textContent.includes('neighbours')).map((s) => [...s.querySelectorAll('rect > title')].map((t) => t.textContent))""")[0]
    for setting in champion["parameters"].split():
        own = [t for t in told if t.startswith(setting + ":")]
        check(len(own) == 1 and abs(float(own[0].split()[1]) - 1e3 * champion["seconds"]) <= 6e-3 * 1e3 * champion["seconds"], f"tuning: {setting} is told as {own}")


def compare(page, row, layer, head):
    """Chooses a layer, a head and a token; what the page says is what --json says."""
    where = f"layer {layer}, head {head}, token {row['position']}"
    begin = time.monotonic()
    page.run(f"""(() => {{ for (const [id, value] of [["layer", {layer}], ["head", {head}], ["token", {row['position']}]]) {{
        const e = document.getElementById(id); e.value = value; e.dispatchEvent(new Event("change")); }} }})()""")
    seconds = time.monotonic() - begin
    said = page.run("({...document.getElementById('said').dataset})")
    check(int(said["exact"]) == row["exact_keys"] and int(said["visible"]) == row["visible_keys"], f"{where}: keys {said}")
    for name, key in (("expected", "error_estimate"), ("actual", "error"), ("own", "own"), ("apart", "apart")):
        check(near(float(said[name]), row[key], 2e-5), f"{where}: {name} {said[name]}, not {row[key]}")
    keys = page.run("[...document.querySelectorAll('#attended tbody tr')].map((r) => [Number(r.querySelector('[data-go]').dataset.go), parseFloat(r.cells[3].textContent)])")
    wanted = [[k, w] for k, w in row["strongest"] if round(w * 65535) > 0]
    check([k for k, _ in keys] == [k for k, _ in wanted] and all(near(a[1], 100 * b[1], 0.06) for a, b in zip(keys, wanted)),
          f"{where}: strongest keys {keys[:3]}, not {wanted[:3]}")
    return seconds


def compare_walk(page, walk):
    """The way of one query through the trees, as the page tells it after its layer, head and token were chosen."""
    where = f"walk of layer {walk['layer']}, head {walk['head']}, token {walk['position']}"
    page.run(f"""(() => {{ for (const [id, value] of [["layer", {walk['layer']}], ["head", {walk['head']}], ["token", {walk['position']}], ["chunk", ""]]) {{
        const e = document.getElementById(id); e.value = value; e.dispatchEvent(new Event("change")); }} }})()""")
    said = page.run("({...document.getElementById('walked').dataset})")
    check([int(said[k]) for k in ("position", "nodes", "opened", "keys")] == [walk[k] for k in ("position", "nodes", "opened", "opened_keys")], f"{where}: {said}")
    check(near(float(said["accepted"]), walk["accepted"], 1e-5), f"{where}: accepts {said['accepted']}, not {walk['accepted']}")
    cells = "[...document.querySelectorAll('#%s tbody tr')].map((r) => [...r.cells].map((c) => c.textContent))"
    levels = [[int(c.replace(",", "")) for c in row[:3]] + [float(row[3])] for row in page.run(cells % "walk-levels")]
    check([r[:3] for r in levels] == [[x["keys"], x["nodes"], x["opened"]] for x in walk["levels"]], f"{where}: levels {levels}")
    check(all(near(r[3], x["error"], 1e-4) for r, x in zip(levels, walk["levels"])), f"{where}: errors of levels {levels}")
    nodes = page.run(cells % "walk-nodes")
    check([(float(r[2]), r[5]) for r in nodes] == [(round(x["may_hide"], 4) if x["may_hide"] >= 1e-3 else float(f"{x['may_hide']:.1e}"), "opened" if x["opened"] else "closed")
                                                   for x in walk["strongest"]], f"{where}: nodes {nodes[:2]}, not {walk['strongest'][:2]}")
    check(sum(x["nodes"] for x in walk["levels"]) == walk["nodes"] and sum(x["opened"] for x in walk["levels"]) == walk["opened"], f"{where}: levels do not add up")


def visit_walks(page, name, numbers):
    """Some walks; a chunk that is clicked."""
    walks = numbers["walks"]
    check((page.run("!!document.getElementById('walk')")) == bool(walks), f"{name}: {len(walks)} walks")
    for walk in walks[:: max(1, len(walks) // 6)]:
        compare_walk(page, walk)
    if not any(w["nodes"] for w in walks):
        return
    at = page.run("(() => { const e = document.getElementById('walk'); e.scrollIntoView(); const r = e.getBoundingClientRect(); return [r.right - 3, r.y + 20]; })()")
    for kind in ("mousePressed", "mouseReleased"):
        page.call("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button="left", clickCount=1)
    last = page.run("Number(document.getElementById('chunk').value)")
    ranges = page.run("[...document.querySelectorAll('#walk-nodes tbody tr')].map((r) => r.cells[0].textContent)")
    begin = f"{last * numbers['chunk']:,}"
    check(last > 0 and ranges and any(r.startswith(begin + "\u2013") for r in ranges), f"{name}: a click on chunk {last} shows {ranges[:3]}")


def take(page, shots, name, width, dark):
    """The shots that are kept are of some of the pages, and small; all others are as they are seen."""
    for kind, kept in (("png", "."), ("webp", "model of-run of-decisions.jsonl of-splats.safetensors tuning-file")):
        if kind == "png" or name in kept.split():
            (Path(shots) / kind).mkdir(parents=True, exist_ok=True)
            page.screenshot(Path(shots) / kind / f"{name}-{width}{'-dark' if dark else ''}.{kind}", 1 if kind == "png" else 0.5)


def glance(browser, path, expected, shots, compare_with=None):
    """A page without a script of ours: opens, fits, says nothing, and has the numbers."""
    for width, dark in ((1100, False), (1100, True), (700, False), (390, False)):
        page = browser.open(path, width=width, dark=dark)
        wide = page.run("document.documentElement.scrollWidth")
        check(wide <= width, f"{path.stem}: is {wide} wide on a screen of {width}")
        if shots:
            take(page, shots, path.stem, width, dark)
    page.run("document.querySelectorAll('details').forEach((d) => d.open = true)")
    text = page.run("document.querySelector('main').textContent")
    for words in expected:
        check(words in text, f"{path.stem}: does not say {words!r}")
    if compare_with:
        compare_with(page)
    check(page.run("document.querySelectorAll('svg title').length") > 2, f"{path.stem}: pictures without words")
    check(page.run("document.querySelectorAll('script').length") == 0, f"{path.stem}: a script")
    check(page.complaints == [], f"{path.stem}: {page.complaints}")


def visit(browser, path, numbers, text=None, shots=None):
    name = path.stem
    for width, dark in ((1100, False), (700, False), (390, False), (1100, True)):
        page = browser.open(path, width=width, dark=dark)
        wide = page.run("document.documentElement.scrollWidth")
        check(wide <= width, f"{name}: is {wide} wide on a screen of {width}")
        light = page.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        check(light != dark, f"{name}: dark is {dark}, and the paper white is {light}")
        if shots:
            take(page, shots, name, width, dark)
        check(page.complaints == [], f"{name}: {page.complaints}")
    page = browser.open(path)
    check(page.seconds < 10, f"{name}: opened in {page.seconds:.1f} s")
    rows = {(r["layer"], r["head"], r["position"]): r for r in numbers["rows"]}
    positions = sorted({r["position"] for r in numbers["rows"]})
    slowest = 0
    for layer in sorted({0, numbers["layers"] // 2, numbers["layers"] - 1}):
        for head in sorted({0, numbers["heads"] - 1}):
            for position in (positions[0], positions[len(positions) // 2], positions[-1]):
                slowest = max(slowest, compare(page, rows[layer, head, position], layer, head))
    print(f"{name}: {path.stat().st_size} bytes, opened in {page.seconds:.2f} s, a choice of three answered in {slowest:.3f} s at most")
    compare_story(page, name, numbers)
    visit_walks(page, name, numbers)
    # A click and a key, as a person's.
    first = page.run("(() => { const r = document.querySelector('.token').getBoundingClientRect(); document.querySelector('#tokens').scrollIntoView(); const s = document.querySelector('.token').getBoundingClientRect(); return [s.x + 2, s.y + s.height / 2, Number(document.querySelector('.token').dataset.token)]; })()")
    for kind in ("mousePressed", "mouseReleased"):
        page.call("Input.dispatchMouseEvent", type=kind, x=first[0], y=first[1], button="left", clickCount=1)
    nearest = min(positions, key=lambda p: (abs(p - first[2]), p))
    check(page.run("Number(document.getElementById('said').dataset.position)") == nearest, f"{name}: a click on token {first[2]}")
    page.run("document.getElementById('tokens').focus()")
    page.key("ArrowRight")
    check(page.run("document.getElementById('tokens').getAttribute('aria-activedescendant')") == f"t{first[2] + 1}", f"{name}: the right arrow")
    page.run("document.getElementById('rows').open = true")
    page.run("new Promise((done) => setTimeout(done, 50))")
    check(page.run("document.querySelectorAll('#rows tbody tr').length") == len(positions), f"{name}: the table of rows")
    if text is not None:
        check(page.run("document.querySelectorAll('main script, #tokens img, #tokens script').length") == 1, f"{name}: the text became elements")
        shown = page.run("document.getElementById('tokens').textContent")
        check("<script>alert(1)</script>" in shown and "\u2400" in shown and "\ufffd" in shown and "\\u202e" in shown, f"{name}: shows {shown[:80]!r}")
    check(page.complaints == [], f"{name}: {page.complaints}")


def check_trace(clsplat, folder):
    """Kernels, copies and steps of the host, each when it was."""
    path = folder / "trace.json"
    done = subprocess.run([clsplat, "eval", MODEL, folder / "hostile <b>.txt", "--trace", path], capture_output=True, check=False)
    check(done.returncode == 0, f"--trace: {done.stderr}")
    steps = [e for e in json.loads(path.read_text())["traceEvents"] if e["ph"] == "X"]
    whole = [e for e in steps if e["name"] == "eval"]
    kinds = {e["cat"] for e in steps}
    check(len(whole) == 1 and kinds == {"host", "kernel", "copy"}, f"--trace: kinds {kinds}")
    inside = [e for e in steps if whole[0]["ts"] - 5e4 <= e["ts"] and e["ts"] + e["dur"] <= whole[0]["ts"] + whole[0]["dur"] + 5e4]
    check(len(inside) == len(steps) and all(e["dur"] >= 0 for e in steps), f"--trace: {len(steps) - len(inside)} of {len(steps)} steps outside of the run")
    check(any("gemm" in e["name"] and e["cat"] == "kernel" for e in steps), "--trace: no product among the kernels")


def check_show(clsplat, folder):
    """Lines of blocks in a terminal."""
    done = subprocess.run([clsplat, "attend", folder / "qkv.safetensors", "-o", folder / "out.safetensors", "--causal", "--method", "near-far", "--tolerance", "0.1", "--show"],
                          capture_output=True, check=False)
    lines = done.stdout.decode().splitlines()
    check(done.returncode == 0 and len(lines) == 17, f"attend --show: {len(lines)} lines, {done.stderr}")
    check(all(len(set(line) & set("\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588")) > 1 for line in lines[1:]), f"attend --show: {lines[1:3]}")
    done = subprocess.run([clsplat, "generate", MODEL, "--prompt", "def main(" * 40, "-n", "20", "--attention", "near-far", "--show"], capture_output=True, check=False)
    check(done.returncode == 0 and "keys one by one" in done.stderr.decode() and "\u2588" in done.stderr.decode(), f"generate --show: {done.stderr}")
    done = subprocess.run([clsplat, "attend", folder / "qkv.safetensors", "-o", folder / "out.safetensors", "--show"], capture_output=True, check=False)
    check(done.returncode == 2, "attend --show of softmax is not refused")


def make_others(clsplat, folder):
    """Splats, training and adaptation: (page, what it must say)."""
    hostile = "<b onmouseover=alert(1)>\u202e"
    training, history, splats = folder / "run", folder / "decisions.jsonl", folder / "splats.safetensors"
    training.mkdir()
    (training / "log.jsonl").write_text("".join(json.dumps({"step": i, "seconds": i / 2, "loss": 1 + 3 / i**0.5, "bits_per_byte": 1.4 + 4.3 / i**0.5, "rate": 1e-3 * min(1, i / 100) * (1 - i / 2000),
        "norm": 1 + 4 / i + i % 7 / 10, "tokens_per_second": 100.5 + i % 50, **({"validation_bits_per_byte": 1.5 + 4.5 / i**0.5} if i % 100 == 0 else {})}) + "\n" for i in range(1, 1500)) + '{"step": 15')
    history.write_text("".join(json.dumps({"cycle": i // 9, "decision": ["birth", "merge", "death", "mitosis"][i % 4], "head": i % 3, "layer": i % 2, "level": hostile, "from": [i], "to": [],
        "age": 1, "reason": {"use": 0.123456}, "error_before": 1.5 / (i + 1) ** 0.3, "error_after": (1.25 + i % 3 / 10) / (i + 1) ** 0.3, "kept": i % 3 > 0}) + "\n" for i in range(90)))
    done = subprocess.run([clsplat, "init", folder / "qkv.safetensors", "-o", splats, "--covariance", "full", "--seed", "3"], capture_output=True, check=False)
    check(done.returncode == 0, f"init: {done.stderr}")
    kinds = [(training, ["1499"]), (history, [hostile, "0.1235", "merge"]), (splats, ["Phrase", "Document"])]
    pages = []
    for source, expected in kinds:
        out = folder / f"of-{source.name}.html"
        numbers = make(clsplat, out, source, "--svg", folder / "one.svg")
        if not numbers:
            continue
        if source == splats:
            expected = expected + [f"{100 * s['amplitude']:.3f} %" for s in numbers["splats"][:5]] + [f"{s['temperature']:.4g}" for s in numbers["splats"][:2]]
        else:
            check(len(numbers["log"]) == (1499 if source == training else 90), f"{out.name}: {numbers['lines']} lines")
        svg = (folder / "one.svg").read_text(encoding="utf-8")
        ElementTree.fromstring(svg)
        check("<style>" in svg, f"{source.name}: the SVG has no colours")
        comparison = {training: compare_training, history: compare_history, splats: compare_splats}[source]
        pages.append((out, expected, lambda page, comparison=comparison, numbers=numbers: comparison(page, numbers)))
    done = subprocess.run([clsplat, "report", splats, "--png", folder / "one.png", "--picture", "tree", "--dark"], capture_output=True, check=False)
    if done.returncode == 1 and b"Cairo" in done.stderr:
        print("skipped: PNG: this build has no Cairo")
    else:
        check((folder / "one.png").read_bytes().startswith(b"\x89PNG"), f"png: {done.stderr}")
    done = subprocess.run([clsplat, "report", splats, "--svg", folder / "no.svg", "--picture", "loss"], capture_output=True, check=False)
    check(done.returncode == 2 and b"splats, tree, levels" in done.stderr and not (folder / "no.svg").exists(), f"--picture loss of splats: {done.stderr}")
    return pages


TRIED = ("op=softmax; variant=%s; type=F32; form=%s; heads=4; rows=4096; sources=4096; dim=64; value_dim=64; parameters=%s; seconds=%s; error=%s; source=0; device=A <b>device</b>; "
         "vendor=v; platform=p; driver=1; kind=cpu; compute_units=2; max_work_group=64; vector_width=16; local_memory=1\n")


def make_tuning(clsplat, folder):
    """What a short run of the tuner tried, and a file of it with every case in it."""
    home = dict(os.environ, XDG_DATA_HOME=str(folder / "data"))
    done = subprocess.run([clsplat, "report", "--tuning", "-o", folder / "none.html"], capture_output=True, check=False, env=home)
    check(done.returncode == 1 and b"tried.txt" in done.stderr and not (folder / "none.html").exists(), f"report --tuning without any: {done.stderr}")
    done = subprocess.run([clsplat, "tune", "--op", "gemm", "--shape", "1,1,48,48,32", "--budget", "2"], capture_output=True, check=False, env=home)
    check(done.returncode == 0, f"tune: {done.stderr}")
    kept = folder / "data" / "clsplat" / "tried.txt"
    tried = folder / "tried <i>.txt"
    lines = [TRIED % ("wide", "causal", f"TILE={tile} RT={rt} LANES=4", "inf" if tile == 64 and rt == 6 else 1e-3 * (1 + abs(tile - 96) / 96 + abs(rt - 4)), "1e-7") for tile in (32, 64, 96, 128) for rt in (2, 4, 6)]
    tried.write_text("# a comment\n" + "".join(lines) + TRIED % ("plain", "causal", "WG=64", 0.5, 0) + TRIED % ("plain", "-", "-", "inf", "inf") + TRIED % ("<i>wide</i>", "-", "TILE=1", "0.25", "0"))
    pages = []
    for name, source in (("tuning", kept), ("tuning-file", tried)):
        numbers = make(clsplat, folder / f"{name}.html", "--tuning", source)
        if numbers:
            pages.append((folder / f"{name}.html", ["champion", "tried"], lambda page, numbers=numbers: compare_tuning(page, numbers)))
    check(numbers and [len(g["candidates"]) for g in numbers["groups"]] == [13, 2] and numbers["groups"][0]["rejected"] == 1 and
          sum(x["neighbour"] for x in numbers["groups"][0]["candidates"]) == 5, f"tuning-file: {numbers and numbers['groups'][0]}")
    for picture in ("landscape", "neighbours", "candidates"):
        done = subprocess.run([clsplat, "report", "--tuning", tried, "--svg", folder / "one.svg", "--picture", picture], capture_output=True, check=False)
        check(done.returncode == 0 and b"<svg" in (folder / "one.svg").read_bytes()[:10], f"tuning: --picture {picture}: {done.stderr}")
    return pages


def main():
    clsplat = str(Path(sys.argv[1]).resolve())
    shots = sys.argv[2] if len(sys.argv) > 2 else None
    random = np.random.default_rng(7)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        model = folder / MODEL.name
        model.symlink_to(MODEL)
        shutil.copy(MODEL / "heldout.txt", folder / "heldout.txt")
        (folder / "hostile <b>.txt").write_bytes(HOSTILE)
        save_tensors(folder / "qkv.safetensors", {name: random.standard_normal((2, heads, 700, 32)) for name, heads in (("q", 4), ("k", 2), ("v", 2))})
        reports = [
            ("model", (model, folder / "heldout.txt", "--context", "1024"), None),
            ("softmax", (model, folder / "heldout.txt", "--context", "300", "--attention", "softmax", "--rows", "7,100-120,298"), None),
            ("hostile", (model, folder / "hostile <b>.txt", "--rows", "0-80"), HOSTILE),
            ("tensors", (folder / "qkv.safetensors", "--causal", "--tolerance", "0.1", "--chunk", "64"), None),
            ("tensors-all", (folder / "qkv.safetensors", "--tolerance", "0.1", "--chunk", "64", "--rows", "0,699"), None),
        ]
        made = [(folder / f"{name}.html", text, make(clsplat, folder / f"{name}.html", *arguments)) for name, arguments, text in reports]
        others = make_others(clsplat, folder) + make_tuning(clsplat, folder)
        check_trace(clsplat, folder)
        check_show(clsplat, folder)
        for path in [path for path, _, numbers in made if numbers] + [path for path, _, _ in others]:
            tidy(path)
        if not shutil.which("tidy"):
            print("skipped: tidy: not installed")
        if not chromium.find():
            print("skipped: Chromium: not installed")
        else:
            with chromium.Browser() as browser:
                for path, text, numbers in made:
                    if numbers:
                        visit(browser, path, numbers, text, shots)
                for path, expected, comparison in others:
                    glance(browser, path, expected, shots, comparison)
    print(f"{passed} passed, {failed} failed, {0 if chromium.find() else 1} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
