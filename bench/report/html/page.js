// The page: filters over tables and figures, rows that can be hidden, runs that can be opened.
"use strict";

(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { looks, rows, charts, cards } = data;
  const one = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => Array.from(within.querySelectorAll(selector));
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  // ---- what is shown

  const asked = { dataset: "", net: "", family: "", reach: "", name: "" };
  const hidden = new Set(); // numbers of looks
  const familyOf = new Map(looks.map((look) => [look.method, look.family]));
  const reachOf = new Map();
  rows.forEach((row) => {
    reachOf.set(`${row.look} ${row.dataset}`, row.reach);
    if (!reachOf.has(`${row.look} `)) reachOf.set(`${row.look} `, row.reach);
  });

  const passes = (of) =>
    Object.keys(asked).every((facet) => {
      if (!asked[facet] || of[facet] === undefined) return true;
      return facet === "name" ? of.name.toLowerCase().includes(asked.name.toLowerCase()) : of[facet] === asked[facet];
    });

  const ofLook = (number, dataset) => {
    const look = looks[number];
    const reach = reachOf.get(`${number} ${dataset}`) ?? reachOf.get(`${number} `);
    return { dataset: dataset || undefined, net: look.net, family: look.family, reach, name: look.label };
  };

  const isShown = (panel, series) => !hidden.has(series.look) && passes(ofLook(series.look, panel.dataset));

  const ofCells = ({ dataset, method, net }) =>
    ({ dataset, net, family: method === undefined ? undefined : familyOf.get(method), name: method });

  function filterTables() {
    for (const table of all("table.sortable")) {
      Tables.filter(table, (of, row) => {
        const at = row.dataset.line;
        if (at === undefined) return passes(ofCells(of));
        return passes(ofLook(rows[at].look, rows[at].dataset));
      });
    }
    showRuns();
  }

  // ---- figures

  const figures = all("figure[data-chart]");
  const pending = new Set(figures);

  function drawFigure(figure) {
    pending.delete(figure);
    const panels = charts[+figure.dataset.chart];
    const place = one(".panels", figure);
    const cells = panels
      .filter((panel) => !panel.dataset || !asked.dataset || panel.dataset === asked.dataset)
      .map((panel) => [panel, make("div", {}, make("h4", { textContent: panel.title }))]);
    place.replaceChildren(...cells.map(([, cell]) => cell));
    for (const [panel, cell] of cells) {
      cell.append(Charts.draw(panel, looks, isShown, Math.max(260, Math.min(720, cell.clientWidth || 420))));
    }
    const pair = figure.closest(".pair");
    const around = pair ? all("figure", pair) : [figure];
    const legend = pair ? pair.lastElementChild : one(".legend", figure);
    legend.replaceChildren(...legendOf(around.flatMap((of) => charts[+of.dataset.chart])));
  }

  function legendOf(panels) {
    const series = panels.flatMap((panel) => panel.series);
    const numbers = [...new Set(series.filter((s) => s.kind !== "front").map((s) => s.look))];
    const line = series.some((s) => s.kind === "line" || s.kind === "steps");
    const front = series.some((s) => s.kind === "front") ? [make("span", { className: "hint", textContent: "line: Pareto front" })] : [];
    return [...numbers.filter((k) => passes(ofLook(k, ""))).map((k) => toggle(k, looks[k].label, line)), ...front, ...notes(panels)];
  }

  function notes(panels) {
    const told = new Map(panels.flatMap((panel) => panel.series.filter((s) => s.note).map((s) => [s.note, s.dash])));
    return [...told].map(([note, dash]) => make("span", { className: "hint", textContent: `${note}: ${dash ? `dashes ${dash}` : "solid"}` }));
  }

  function toggle(number, label, line) {
    const button = make("button", { type: "button", title: "hide or show in all figures" }, Charts.swatch(looks[number], line));
    if (label) button.append(make("span", { textContent: label }));
    else Object.assign(button, { className: "mark", ariaLabel: `hide or show ${looks[number].label}` });
    button.dataset.look = number;
    button.classList.toggle("off", hidden.has(number));
    button.setAttribute("aria-pressed", String(!hidden.has(number)));
    return button;
  }

  // Figures out of sight wait until they come near.
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting && pending.has(entry.target)) drawFigure(entry.target);
  }, { rootMargin: "400px" });
  const redraw = () => figures.forEach((figure) => { pending.add(figure); near.unobserve(figure); near.observe(figure); });

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-look]");
    if (!button) return;
    const number = +button.dataset.look;
    if (!hidden.delete(number)) hidden.add(number);
    for (const other of all(`.mark[data-look="${number}"]`)) other.classList.toggle("off", hidden.has(number));
    redraw();
  });

  // figures of one panel stand side by side, over one legend where they show the same rows in the same way
  function sameRows(a, b) {
    const [rowsOf, others] = [a, b].map((of) => charts[+of.dataset.chart].flatMap((p) => p.series.map((s) => `${s.look} ${s.kind}`)));
    return new Set([...rowsOf, ...others]).size === new Set(rowsOf).size && new Set(rowsOf).size === new Set(others).size;
  }
  for (const figure of figures) {
    const before = figure.previousElementSibling;
    const alike = before?.classList.contains("pair") && sameRows(one("figure", before), figure);
    if (figure.classList.contains("wide")) continue;
    if (alike) before.lastElementChild.before(figure);
    else {
      const pair = make("div", { className: "pair" }, make("div", { className: "legend" }));
      figure.replaceWith(pair);
      pair.prepend(figure);
    }
  }

  // ---- filters

  const form = document.getElementById("filters");
  const choices = { dataset: new Set(), net: new Set(), family: new Set(), reach: new Set() };
  for (const row of rows) {
    const of = ofLook(row.look, row.dataset);
    for (const facet in choices) if (of[facet]) choices[facet].add(of[facet]);
  }
  for (const facet in choices) {
    const select = one(`[data-facet=${facet}]`, form);
    select.append(...[...choices[facet]].sort().map((value) => make("option", { value, textContent: value })));
    select.parentElement.hidden = choices[facet].size < 2;
  }
  if (!rows.length) form.hidden = true;
  const refresh = () => {
    for (const field of all("[data-facet]", form)) asked[field.dataset.facet] = field.value;
    filterTables();
    redraw();
  };
  form.addEventListener("input", refresh);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => { hidden.clear(); all(".mark").forEach((m) => m.classList.remove("off")); setTimeout(refresh); });

  // ---- tables

  const board = document.getElementById("board");
  if (board) {
    const method = Array.from(board.tHead.rows[0].cells).findIndex((cell) => cell.textContent.trim() === "method");
    Array.from(board.tBodies[0].rows).forEach((row, k) => {
      row.dataset.line = k;
      const cell = row.cells[method];
      cell.classList.add("method");
      const open = make("button", { type: "button", className: "open", textContent: cell.textContent });
      open.addEventListener("click", () => openRow(rows[k].dataset, rows[k].look));
      cell.replaceChildren(toggle(rows[k].look, "", false), open);
    });
    document.getElementById("more").addEventListener("change", (event) => board.classList.toggle("all", event.target.checked));
  }
  all("table.sortable").forEach(Tables.makeSortable);

  // The runs are sorted and filtered as data, and only as many rows are made as are looked at.
  const PAGE = 200;
  const runs = document.getElementById("runs");
  const made = new Map(); // rows, by number of the run
  let order = cards ? cards.rows.map((_, k) => k) : [];
  let most = PAGE;

  function rowOf(k) {
    if (!made.has(k)) {
      const row = make("tr", {}, ...cards.rows[k].map((text, c) => make("td", { className: wordly(c), textContent: text || "–" })));
      row.dataset.line = k;
      row.cells[1].replaceChildren(make("button", { type: "button", className: "open", textContent: cards.rows[k][1] }));
      made.set(k, row);
    }
    return made.get(k);
  }
  const wordly = (c) => (cards.words.includes(cards.headers[c]) ? "word" : "");

  function showRuns() {
    const table = runs && one("table", runs);
    if (!table) return;
    const kept = order.filter((k) => passes(ofLook(cards.lines[k][1], cards.lines[k][0])));
    table.tBodies[0].replaceChildren(...kept.slice(0, most).map(rowOf));
    const rest = one(".rest", runs);
    rest.hidden = kept.length <= most;
    rest.textContent = `${Math.min(most, kept.length)} of ${kept.length} shown; show all`;
  }

  runs?.addEventListener("toggle", () => {
    if (!runs.open || one("table", runs)) return;
    const head = make("tr", {}, ...cards.headers.map((header, c) =>
      make("th", { scope: "col", className: wordly(c) }, make("button", { type: "button", textContent: header }))));
    const table = make("table", { id: "all-runs" }, make("thead", {}, head), make("tbody"));
    Tables.onHeader(table, (column, descending) => {
      order = Tables.order(order, (k) => Tables.key(cards.rows[k][column], wordly(column)), descending);
      showRuns();
    });
    table.tBodies[0].addEventListener("click", (event) => {
      const row = event.target.closest("tr");
      if (row) openRun(+row.dataset.line);
    });
    const rest = make("button", { type: "button", className: "rest" });
    rest.addEventListener("click", () => { most = Infinity; showRuns(); });
    one(".scroll", runs).append(table);
    runs.append(rest);
    showRuns();
  });

  // ---- a run

  const dialog = document.getElementById("card");
  const told = (fact) => (typeof fact === "number" ? data.texts[fact] : fact);
  const column = (k, header) => cards.rows[k][cards.headers.indexOf(header)];

  function openRow(dataset, look) {
    const first = cards?.lines.findIndex(([d, l]) => d === dataset && l === look) ?? -1;
    if (first >= 0) openRun(first);
  }

  function openRun(k) {
    const [dataset, look] = cards.lines[k];
    const about = cards.about[k];
    const peers = cards.lines.flatMap(([d, l], other) => (d === dataset && l === look ? [other] : []));
    const status = column(k, "status");
    const parts = [
      make("button", { type: "button", className: "close", textContent: "close", autofocus: true }),
      make("h3", { textContent: `${looks[look].label} on ${looks[look].net}, ${dataset}, seed ${column(k, "seed")}` }),
      make("div", { className: "runs-of" }, ...peers.map((other) => {
        const button = make("button", { type: "button", textContent: `seed ${column(other, "seed")}: ${column(other, "status")}` });
        button.classList.toggle("failed", column(other, "status") !== "ok");
        if (other === k) button.setAttribute("aria-current", "true");
        button.addEventListener("click", () => openRun(other));
        return button;
      })),
    ];
    for (const name in about) {
      const text = told(about[name]).replaceAll("\u0001", column(k, "seed"));
      const short = !text.includes("\n") && name !== "command";
      const label = make("b", { textContent: name });
      if (short) parts.push(make("p", { className: name === "reason" && status !== "ok" ? "failed" : "" }, label, ` ${text}`));
      else parts.push(make("div", {}, label, " ", copier(() => text), make("pre", { textContent: text, className: name })));
    }
    const measured = cards.headers.map((header, c) => [header, cards.rows[k][c]]).slice(6).filter(([, text]) => text);
    parts.push(make("dl", {}, ...measured.map(([name, text]) => make("div", {}, make("dt", { textContent: name }), make("dd", { textContent: text })))));
    dialog.replaceChildren(...parts);
    one(".close", dialog).addEventListener("click", () => dialog.close());
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
  }
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

  function copier(text) {
    const button = make("button", { type: "button", className: "copy", textContent: "copy" });
    button.addEventListener("click", () => copy(text(), button));
    return button;
  }
  // A page from disk may be denied the clipboard: then the text is selected instead.
  async function copy(text, button) {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "copied";
    } catch {
      const pre = one("pre", button.parentElement);
      getSelection().selectAllChildren(pre);
      button.textContent = document.execCommand("copy") ? "copied" : "selected";
    }
  }
  for (const button of all("details.code .copy")) {
    button.addEventListener("click", () => copy(one("pre", button.parentElement).textContent, button));
  }

  // ---- print and size

  addEventListener("beforeprint", () => {
    all("details:not(#runs)").forEach((part) => { part.open = true; });
    [...pending].forEach(drawFigure);
  });
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; redraw(); } });
  redraw();
  document.documentElement.dataset.ready = "true";
})();
