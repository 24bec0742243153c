"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const holder = $("data");
  if (!holder) return;
  const d = JSON.parse(holder.textContent);
  const bytes = (s) => Uint8Array.from(atob(s), (c) => c.charCodeAt(0));
  const rows = new DataView(bytes(d.rows).buffer);
  const apart = bytes(d.apart), surprise = d.surprise ? bytes(d.surprise) : null;
  const size = 24 + 5 * d.top + d.blocks, page = d.page;
  const state = { layer: 0, head: 0, query: d.positions.length - 1, page: -1, token: 0 };

  /* What the C program packed: src/report/data.c. */
  const recordAt = (layer, head, query) => {
    let at = ((layer * d.heads + head) * d.positions.length + query) * size;
    const r = {
      visible: rows.getUint32(at, true), exact: rows.getUint32(at + 4, true),
      expected: rows.getFloat32(at + 8, true), actual: rows.getFloat32(at + 12, true),
      own: rows.getUint16(at + 16, true) / 65535, apart: rows.getUint16(at + 18, true) / 65535,
      entropy: rows.getFloat32(at + 20, true), top: [], blocks: [],
    };
    at += 24;
    for (let i = 0; i < d.top; ++i, at += 5) {
      const weight = rows.getUint16(at + 3, true) / 65535;
      const key = rows.getUint16(at, true) + 65536 * rows.getUint8(at + 2);
      if (weight > 0) r.top.push({ key, weight });
    }
    for (let i = 0; i < d.blocks; ++i) r.blocks.push((rows.getUint8(at + i) / 255) ** 2);
    return r;
  };
  const isApart = (key) => {
    const bit = (state.layer * d.kv_heads + Math.floor(state.head / (d.heads / d.kv_heads))) * d.keys + key;
    return (apart[bit >> 3] >> (bit & 7)) & 1;
  };

  const number = (x) => x.toLocaleString("en");
  const percent = (x) => (100 * x).toFixed(x < 0.0995 ? 2 : 1) + " %";
  const small = (x) => (x === 0 ? "0" : x >= 0.001 ? x.toFixed(4) : x.toExponential(1));
  const times = (x) => (x >= 9.95 ? number(Math.round(x)) : x.toPrecision(2)) + " \u00d7";
  /* Control characters as their pictures, so that they show and do nothing. */
  const shown = (s) => s.replace(/[\u0000-\u0008\u000b-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
    .replace(/\u007f/g, "\u2421").replace(/[\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g, (c) => "\\u" + c.charCodeAt(0).toString(16));
  const wordsOf = (token) => (d.tokens ? shown(d.tokens[token] ?? "") : String(token));
  const quoted = (token) => (d.tokens ? "\u2068" + (wordsOf(token).replace(/\n/g, "\u23ce").replace(/^ | $/g, "\u2423") || "\u00b7") + "\u2069" : "key " + token);
  const make = (name, text, className) => {
    const e = document.createElement(name);
    if (text !== undefined) e.textContent = text;
    if (className) e.className = className;
    return e;
  };
  /* Asked for once, since every question after a change lays the page out anew. */
  let colours = {}, widths = {};
  const forget = () => {
    colours = {};
    widths = {};
  };
  const colour = (name) => (colours[name] ??= getComputedStyle(document.documentElement).getPropertyValue(name).trim());
  const widthOf = (id) => (widths[id] ??= $(id).clientWidth);
  const blockOf = (key) => Math.min(d.blocks - 1, Math.floor((key * d.blocks) / d.keys));
  const kindOf = (r, key) => {
    if (!d.chunk) return "exact";
    const own = d.causal ? Math.floor((r.visible - 1) / d.chunk) * d.chunk : d.keys;
    return key >= own ? "own chunk" : isApart(key) ? "apart" : "in trees";
  };

  /* The recorded query that is nearest to a token. */
  const nearest = (token) => {
    let best = 0;
    d.positions.forEach((p, i) => {
      if (Math.abs(p - token) < Math.abs(d.positions[best] - token)) best = i;
    });
    return best;
  };

  const drawStrip = (r) => {
    const canvas = $("strip"), c = canvas.getContext("2d"), most = Math.max(...r.blocks, 1e-9);
    const ratio = devicePixelRatio || 1, w = (canvas.width = widthOf("strip") * ratio), h = (canvas.height = 64 * ratio);
    c.fillStyle = colour("--c4");
    r.blocks.forEach((share, i) => {
      const high = share > 0 ? Math.max(1, (h - 8) * Math.sqrt(share / most)) : 0;
      c.fillRect((i * w) / d.blocks + 1, h - high, w / d.blocks - 2, high);
    });
    c.fillStyle = colour("--c5");
    c.fillRect((d.positions[state.query] / d.keys) * w - 1, 0, 3 * ratio, h);
    c.strokeStyle = colour("--c0");
    c.strokeRect((state.page * page * w) / d.keys, 1, Math.max(2, (page * w) / d.keys), h - 2);
    const strongest = r.blocks.indexOf(Math.max(...r.blocks));
    canvas.setAttribute("aria-label", `Where in the text the weight lies, in ${d.blocks} parts: most, ${percent(r.blocks[strongest])}, in part ${strongest + 1}`);
  };

  const drawMatrix = () => {
    const canvas = $("matrix"), c = canvas.getContext("2d"), n = d.positions.length;
    const w = (canvas.width = 640), h = (canvas.height = Math.min(n * 8, 512)), errors = 40;
    const heats = [...Array(9).keys()].map((i) => colour("--c" + (10 + i)));
    for (let q = 0; q < n; ++q) {
      const r = recordAt(state.layer, state.head, q), y = Math.floor((q * h) / n), high = Math.floor(((q + 1) * h) / n) - y;
      if (high === 0) continue;
      for (let i = 0; i < d.blocks; ++i) {
        c.fillStyle = heats[Math.min(8, Math.floor(9 * Math.sqrt(r.blocks[i])))];
        c.fillRect((i * (w - errors)) / d.blocks, y, (w - errors) / d.blocks, high);
      }
      if (!d.chunk) continue;
      c.fillStyle = heats[Math.min(8, Math.floor((4.5 * r.actual) / (d.tolerance || 1)))];
      c.fillRect(w - errors + 6, y, errors - 6, high);
    }
    c.fillStyle = colour("--c5");
    c.fillRect(0, (state.query * h) / n, w, Math.max(1, h / n / 4));
  };

  const tint = (token, r, strong) => {
    const key = strong.get(token);
    if ($("paint").value === "surprise") return surprise && token > 0 ? Math.min(1, surprise[token] / 8 / 12) : 0;
    if (token > d.positions[state.query] && d.causal) return 0;
    if (key !== undefined) return Math.max(0.15, Math.sqrt(key / r.top[0].weight));
    const per = d.keys / d.blocks, weight = r.blocks[blockOf(token)] / per;
    return r.top.length ? Math.min(0.12, Math.sqrt(weight / r.top[0].weight)) : 0;
  };

  const drawTokens = (r) => {
    const box = $("tokens"), first = state.page * page, end = Math.min(d.keys, first + page);
    const strong = new Map(r.top.map((t) => [t.key, t.weight])), kept = new Set(d.positions), chosen = d.positions[state.query];
    if (box.dataset.page !== String(state.page)) {
      const all = document.createDocumentFragment();
      for (let i = first; i < end; ++i) {
        const e = make("span", d.tokens ? wordsOf(i) || "\u00b7" : i + " ", "token");
        e.id = "t" + i;
        e.dataset.token = i;
        e.setAttribute("role", "option");
        all.append(e);
      }
      box.replaceChildren(all);
      box.dataset.page = state.page;
    }
    for (const e of box.children) {
      const i = Number(e.dataset.token), share = tint(i, r, strong);
      e.style.background = share > 0 ? `color-mix(in srgb, var(--c4) ${Math.round(75 * share)}%, transparent)` : "";
      e.classList.toggle("kept", kept.has(i));
      e.classList.toggle("apart", d.chunk > 0 && !!isApart(i));
      e.classList.toggle("chosen", i === chosen);
      e.setAttribute("aria-selected", i === chosen ? "true" : "false");
    }
    const active = $("t" + state.token);
    if (active) box.setAttribute("aria-activedescendant", active.id);
    $("where").textContent = `tokens ${number(first)} to ${number(end - 1)} of ${number(d.keys)}`;
  };

  const drawTable = (r) => {
    $("attended").tBodies[0].replaceChildren(...r.top.map((t) => {
      const tr = make("tr"), go = make("button", number(t.key)), cell = make("td"), bar = make("span", "", "bar"), share = make("td", percent(t.weight) + " ");
      go.type = "button";
      go.dataset.go = t.key;
      go.setAttribute("aria-label", "show token " + t.key);
      cell.append(go);
      bar.style.width = Math.max(1, 120 * t.weight) + "px";
      share.append(bar);
      tr.append(cell, make("td", quoted(t.key), "words"), make("td", kindOf(r, t.key)), share);
      return tr;
    }));
  };

  const say = (r, wanted) => {
    const at = d.positions[state.query], parts = [];
    if (wanted !== undefined && wanted !== at) parts.push(`Token ${number(wanted)} was not recorded; the nearest that was is ${number(at)}.`);
    parts.push(`${d.tokens ? "Token" : "Query"} ${number(at)} ${d.tokens ? quoted(at) : ""}, layer ${state.layer}, head ${state.head}:`);
    parts.push(`${number(r.exact)} of ${number(r.visible)} keys one by one (${percent(r.exact / r.visible)}), ${r.entropy.toFixed(2)} bits of entropy.`);
    if (d.chunk) {
      parts.push(`Of the exact weight, ${percent(r.own)} is in its own chunk, ${percent(r.apart)} on keys apart, ${percent(Math.max(0, 1 - r.own - r.apart))} in trees.`);
      parts.push(`Error of its output: ${small(r.expected)} expected, ${small(r.actual)} true.`);
    }
    $("said").textContent = parts.join(" ");
    Object.assign($("said").dataset, { exact: r.exact, visible: r.visible, expected: r.expected, actual: r.actual, own: r.own, apart: r.apart, position: at });
  };

  const draw = (wanted) => {
    for (const id of ["strip", ...(d.walks ? ["walk"] : [])]) widthOf(id);
    const r = recordAt(state.layer, state.head, state.query);
    drawTokens(r);
    drawStrip(r);
    drawMatrix();
    drawTable(r);
    say(r, wanted);
    drawWalk();
    if ($("rows").open) drawRows();
  };

  /* Walks through the trees, as src/report/look_walk.c reads them. */
  const walks = [];
  if (d.walks) {
    const packed = new DataView(bytes(d.walks).buffer);
    for (let at = 0; at < packed.byteLength; at += 14 + 2 * packed.getUint32(at + 4, true)) walks.push(at);
    walks.view = packed;
  }
  const walkOf = (layer, head) => {
    let best = 0;
    d.walked.forEach((q, i) => {
      if (Math.abs(q - state.query) < Math.abs(d.walked[best] - state.query)) best = i;
    });
    const v = walks.view, at = walks[(layer * d.heads + head) * d.walked.length + best];
    const position = d.positions[d.walked[best]], past = d.causal ? Math.floor(position / d.chunk) : Math.ceil(d.keys / d.chunk);
    const w = { position, accepted: v.getFloat32(at, true), count: v.getUint32(at + 4, true), keys: v.getUint32(at + 8, true), highest: v.getUint16(at + 12, true), covered: past * d.chunk, nodes: [] };
    const unit = w.accepted > 0 ? w.accepted : 1e-6, fan = (level) => d.sizes[level] / d.sizes[level - 1];
    let i = 0;
    const visit = (level, g) => {
      if (i >= w.count) return;
      const code = v.getUint16(at + 14 + 2 * i++, true), most = (code >> 8) & 127, error = code & 255;
      const node = { level, first: g * d.sizes[level], keys: d.sizes[level], opened: code >> 15, most: most ? unit * 2 ** ((most - 64) / 4) : 0, error: error ? unit * 2 ** ((error - 128) / 8) : 0 };
      w.nodes.push(node);
      if (node.opened && level > 0) for (let c = 0; c < fan(level); ++c) visit(level - 1, g * fan(level) + c);
    };
    for (let level = w.highest; level >= d.top_level; --level) {
      const whole = d.sizes[level], highest = level === w.highest;
      let from = highest ? 0 : (Math.floor(w.covered / d.sizes[level + 1]) * d.sizes[level + 1]) / whole, end = Math.floor(w.covered / whole);
      if (!d.causal) end = highest ? Math.ceil(w.covered / whole) : from;
      for (; from < end; ++from) visit(level, from);
    }
    return w;
  };

  const drawWalk = () => {
    if (!d.walks) return;
    const w = walkOf(state.layer, state.head), canvas = $("walk"), c = canvas.getContext("2d"), ratio = devicePixelRatio || 1, orange = colour("--c5"), row = 28 * ratio, left = 64 * ratio;
    const width = (canvas.width = widthOf("walk") * ratio), heats = [...Array(9).keys()].map((i) => colour("--c" + (10 + i))), chunk = $("chunk").value === "" ? -1 : Number($("chunk").value);
    canvas.style.height = 28 * (w.highest + 1) + 18 + "px";
    canvas.height = row * (w.highest + 1) + 18 * ratio;
    const each = (width - left) / Math.max(1, w.covered), x = (n) => left + n.first * each;
    for (const opened of [0, 1])
      for (const n of w.nodes) {
        if (n.opened !== opened) continue;
        const near = n.error > 0 && w.accepted > 0 ? 1 + 0.08 * Math.log2(n.error / w.accepted) : 0, wide = n.keys * each;
        c.fillStyle = opened ? orange : heats[Math.max(0, Math.min(8, Math.floor(9 * near)))];
        c.fillRect(x(n), (w.highest - n.level) * row, Math.max(wide - (wide > 4 * ratio ? 1 : 0), ratio / 2), row - 3 * ratio);
      }
    c.fillStyle = colour("--c1");
    c.font = 11 * ratio + "px system-ui";
    for (let level = 0; level <= w.highest; ++level) c.fillText(number(d.sizes[level]) + (level ? "" : " keys"), 4 * ratio, (w.highest - level) * row + 17 * ratio);
    c.fillText("0", left, canvas.height - 4 * ratio);
    c.fillText(number(w.covered), width - 44 * ratio, canvas.height - 4 * ratio);
    if (chunk >= 0) {
      c.strokeStyle = colour("--c0");
      c.lineWidth = 2 * ratio;
      c.strokeRect(left + chunk * d.chunk * each - ratio, ratio, Math.max(4 * ratio, d.chunk * each + 2 * ratio), row * (w.highest + 1) - 3 * ratio);
    }
    tellWalk(w, chunk);
  };

  const tellWalk = (w, chunk) => {
    const cells = (list) => {
      const tr = make("tr");
      tr.append(...list.map((s) => make("td", s)));
      return tr;
    };
    const opened = w.nodes.reduce((sum, n) => sum + n.opened, 0), levels = [];
    for (let level = w.highest; level >= 0; --level) {
      const those = w.nodes.filter((n) => n.level === level), closed = those.filter((n) => !n.opened);
      levels.push(cells([number(d.sizes[level]), number(those.length), number(those.length - closed.length), small(Math.hypot(...closed.map((n) => n.error)))]));
    }
    $("walk-levels").tBodies[0].replaceChildren(...levels);
    const inside = (n) => chunk < 0 || (n.first < (chunk + 1) * d.chunk && n.first + n.keys > chunk * d.chunk);
    const shown = w.nodes.filter(inside).sort((a, b) => b.most - a.most).slice(0, chunk < 0 ? 10 : 40);
    $("walk-nodes").tBodies[0].replaceChildren(...shown.map((n) => {
      const begin = Math.floor(n.first / d.chunk) * d.chunk, end = Math.min(d.keys, Math.max(begin + d.chunk, n.first + n.keys));
      return cells([`${number(begin)}\u2013${number(end - 1)}`, number(n.keys), small(n.most), w.accepted > 0 ? times(n.most / w.accepted) : "\u2013", small(n.error), n.opened ? "opened" : "closed"]);
    }));
    const other = w.position === d.positions[state.query] ? "" : `The walk of token ${number(d.positions[state.query])} was not kept; the nearest that was is of ${number(w.position)}. `;
    $("walked").textContent = w.count === 0
      ? other + (w.covered ? "This layer has a window, and no trees." : "There is nothing before its own chunk.")
      : `${other}Token ${number(w.position)}, layer ${state.layer}, head ${state.head}: ${number(w.count)} nodes looked at, ${number(opened)} opened, and ${number(w.keys)} keys taken one by one below them. It accepts an expected error of ${small(w.accepted)} of one node.`;
    Object.assign($("walked").dataset, { position: w.position, nodes: w.count, opened, keys: w.keys, accepted: w.accepted });
  };

  const drawRows = () => {
    $("rows").querySelector("tbody").replaceChildren(...d.positions.map((p, i) => {
      const r = recordAt(state.layer, state.head, i), tr = make("tr");
      tr.append(...[number(p), number(r.visible), number(r.exact), small(r.expected), small(r.actual), r.entropy.toFixed(2), percent(r.own), percent(r.apart)].map((s) => make("td", s)));
      return tr;
    }));
  };

  const show = (token) => {
    state.page = Math.floor(Math.max(0, Math.min(d.keys - 1, token)) / page);
  };
  const choose = (token, go = true) => {
    state.token = token;
    state.query = nearest(token);
    if (go) show(token);
    $("token").value = d.positions[state.query];
    draw(token);
  };

  for (const [id, count] of [["layer", d.layers], ["head", d.heads]]) {
    for (let i = 0; i < count; ++i) $(id).append(new Option(id === "layer" && d.layer_names ? d.layer_names[i] : i, i));
    $(id).addEventListener("change", (e) => {
      state[id] = Number(e.target.value);
      draw();
    });
  }
  $("paint").addEventListener("change", () => draw());
  $("token").max = d.keys - 1;
  $("token").addEventListener("change", (e) => choose(Math.max(0, Math.min(d.keys - 1, Number(e.target.value) || 0))));
  $("before").addEventListener("click", () => choose(d.positions[Math.max(0, state.query - 1)]));
  $("after").addEventListener("click", () => choose(d.positions[Math.min(d.positions.length - 1, state.query + 1)]));
  $("tokens").addEventListener("click", (e) => {
    const at = e.target.closest("[data-token]");
    if (at) choose(Number(at.dataset.token), false);
  });
  $("tokens").addEventListener("keydown", (e) => {
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 16, ArrowUp: -16, PageDown: page, PageUp: -page };
    if (!(e.key in steps)) return;
    e.preventDefault();
    choose(Math.max(0, Math.min(d.keys - 1, state.token + steps[e.key])));
    $("t" + state.token)?.scrollIntoView({ block: "nearest" });
  });
  $("strip").addEventListener("click", (e) => {
    show(Math.floor((e.offsetX / e.target.clientWidth) * d.keys));
    draw();
  });
  $("matrix").addEventListener("click", (e) => choose(d.positions[Math.min(d.positions.length - 1, Math.floor((e.offsetY / e.target.clientHeight) * d.positions.length))]));
  $("attended").addEventListener("click", (e) => {
    const at = e.target.closest("[data-go]");
    if (!at) return;
    show(Number(at.dataset.go));
    draw();
    $("t" + at.dataset.go)?.scrollIntoView({ block: "nearest" });
  });
  if (d.walks) {
    $("chunk").addEventListener("change", drawWalk);
    $("walk").addEventListener("click", (e) => {
      const share = (e.offsetX - 64) / (e.target.clientWidth - 64), w = walkOf(state.layer, state.head);
      $("chunk").value = share < 0 ? "" : Math.min(Math.ceil(w.covered / d.chunk) - 1, Math.floor((share * w.covered) / d.chunk));
      drawWalk();
    });
  }
  $("rows").addEventListener("toggle", () => $("rows").open && drawRows());
  matchMedia("(prefers-color-scheme:dark)").addEventListener("change", () => (forget(), draw()));
  addEventListener("resize", () => (forget(), draw()));
  if (!surprise) $("paint").closest("label").classList.add("hidden");
  choose(d.positions[state.query]);
})();
