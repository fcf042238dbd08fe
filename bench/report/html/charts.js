// Figures: each panel drawn by Observable Plot from the page's data, with the looks that the printed figures have.
"use strict";

const Charts = (() => {
  const HEIGHT = 300;
  const SVG = "http://www.w3.org/2000/svg";

  const symbol = (polygon) => ({
    draw(context, size) {
      const side = Math.sqrt(size);
      polygon.forEach(([x, y], k) => context[k ? "lineTo" : "moveTo"](x * side, y * side));
      context.closePath();
    },
  });

  // Percentages by their distance to 100, logarithmically, where the axis says so.
  const LEAST_ERROR = 0.1;
  const ACCURACIES = [0, 50, 80, 90, 95, 98, 99, 99.5, 99.9];
  const placed = (y, errors) => (errors && y !== null && y !== undefined ? -Math.log10(Math.max(LEAST_ERROR, 100 - y)) : y);

  const points = (series, errors = false) =>
    series.x.map((x, k) => ({
      x, y: placed(series.y[k], errors), low: placed(series.low?.[k], errors), high: placed(series.high?.[k], errors), k,
    })).filter((p) => p.x !== null && p.y !== null);

  // A marker: its outline on paper, and within it what is filled.
  function marks(data, look, r, opacity = 1) {
    const at = { x: "x", y: "y", r, opacity };
    const found = [Plot.dot(data, { ...at, symbol: symbol(look.outline), fill: "var(--paper)", stroke: look.colour, strokeWidth: 1 })];
    if (look.inside.length) found.push(Plot.dot(data, { ...at, symbol: symbol(look.inside), fill: look.colour, stroke: "none" }));
    return found;
  }

  function drawSeries(series, look, errors) {
    const data = points(series, errors);
    const dash = series.dash ?? look.dash;
    switch (series.kind) {
      case "front":
        return [Plot.line(data, { x: "x", y: "y", stroke: "var(--soft)", strokeOpacity: 0.6, curve: "step-after" })];
      case "seeds":
        return [Plot.dot(data, { x: "x", y: "y", r: 1.8, fill: look.colour, fillOpacity: 0.4, stroke: "none" })];
      case "mean":
        return [
          Plot.ruleX(data.filter((p) => p.low !== undefined), { x: "x", y1: "low", y2: "high", stroke: look.colour, clip: true }),
          ...marks(data, look, look.reference ? 6 : 4.5),
        ];
      default: {
        const curve = series.kind === "steps" ? "step-after" : "linear";
        const every = Math.floor(data.length / 12) + 1;
        const banded = data.filter((p) => p.low !== undefined && p.low !== null);
        return [
          Plot.areaY(banded, { x: "x", y1: "low", y2: "high", fill: look.colour, fillOpacity: 0.13, curve, clip: true }),
          Plot.line(data, { x: "x", y: "y", stroke: look.colour, strokeDasharray: dash, strokeWidth: 1.6, curve }),
          ...marks(data.filter((_, k) => series.kind !== "steps" ? k % every === 0 : k === 0 || k === data.length - 1), look, 3),
        ];
      }
    }
  }

  // Names beside marks, above all marks.
  const named = (series, look, errors) => Plot.text(points(series, errors), { x: "x", y: "y", text: () => look.label, dx: 8, dy: 9,
    textAnchor: "start", fill: look.colour, stroke: "var(--paper)", strokeWidth: 3 });

  const shown = (value) => (Math.abs(value) >= 100 ? value.toFixed(1) : String(+value.toPrecision(4)));

  function tips(panel, drawn, looks) {
    const data = [];
    for (const series of drawn) {
      if (series.kind === "front" || series.kind === "seeds") continue;
      const look = looks[series.look];
      for (const p of points(series, panel.y.errors)) {
        const [y, low, high] = [series.y, series.low, series.high].map((values) => values?.[p.k]);
        const spread = low === undefined || low === null || low === high ? "" : ` (${shown(low)} to ${shown(high)})`;
        const name = look.label + (series.note ? `, ${series.note}` : "");
        data.push({ ...p, title: `${name}\n${panel.y.title}: ${shown(y)}${spread}\n${panel.x.title}: ${shown(p.x)}` });
      }
    }
    return Plot.tip(data, Plot.pointer({ x: "x", y: "y", title: "title", fill: "var(--paper)", stroke: "var(--soft)", maxRadius: 30 }));
  }

  function draw(panel, looks, isShown, width) {
    const drawn = panel.series.filter((series) => series.kind === "front" || isShown(panel, series));
    const ys = drawn.flatMap((s) => [...s.y, ...(s.kind === "mean" ? [] : s.low ?? []), ...(s.kind === "mean" ? [] : s.high ?? [])]).filter((y) => y !== null);
    const y = { label: panel.y.title, grid: true, labelArrow: "none", nice: true };
    if (!panel.y.errors && panel.y.highest !== null && ys.length && d3.max(ys) > 0.9 * panel.y.highest) {
      const low = d3.min(ys);
      Object.assign(y, { nice: false, domain: [low - 0.05 * (panel.y.highest - low), panel.y.highest] });
    }
    if (panel.y.errors && ys.length) {
      const at = ys.map((value) => placed(value, true));
      const domain = [Math.max(-2, d3.min(at) - 0.1), d3.max(at) + 0.15];
      const ticks = ACCURACIES.map((a) => placed(a, true)).filter((v) => v >= domain[0] && v <= domain[1]);
      Object.assign(y, { nice: false, domain, ticks, tickFormat: (v) => String(+(100 - 10 ** -v).toFixed(1)) });
    }
    const xs = drawn.flatMap((s) => s.x).filter((x) => x !== null);
    const x = { label: panel.x.title, labelArrow: "none", labelAnchor: "center", inset: 8, type: panel.x.log ? "log" : "linear" };
    if (panel.x.log) Object.assign(x, { ticks: Math.max(3, width / 90), tickFormat: (v) => d3.format(v >= 1e5 ? ".0e" : ",~r")(v) });
    else if (panel.x.whole) Object.assign(x, { ticks: Math.min(8, (d3.max(xs) ?? 1) - (d3.min(xs) ?? 0) + 1), tickFormat: "d" });
    else x.ticks = Math.max(3, width / 90);
    return Plot.plot({
      width, height: HEIGHT, marginLeft: 48, marginBottom: 38, marginTop: 24, marginRight: 16, clip: false,
      style: { background: "transparent", color: "var(--ink)", fontSize: "11px" },
      x, y,
      marks: [Plot.frame({ anchor: "bottom" }), ...drawn.flatMap((series) => drawSeries(series, looks[series.look], panel.y.errors)),
        ...drawn.filter((series) => series.labelled).map((series) => named(series, looks[series.look], panel.y.errors)), tips(panel, drawn, looks)],
    });
  }

  function polygon(points, side, x, y, attributes) {
    const element = document.createElementNS(SVG, "polygon");
    element.setAttribute("points", points.map(([a, b]) => `${x + a * side},${y + b * side}`).join(" "));
    for (const name in attributes) element.setAttribute(name, attributes[name]);
    return element;
  }

  // How a row looks, for legends and tables.
  function swatch(look, line) {
    const svg = document.createElementNS(SVG, "svg");
    const width = line ? 30 : 14;
    svg.setAttribute("width", width);
    svg.setAttribute("height", 14);
    svg.setAttribute("aria-hidden", "true");
    if (line) {
      const rule = document.createElementNS(SVG, "line");
      const at = { x1: 0, x2: width, y1: 7, y2: 7, stroke: look.colour, "stroke-width": 1.6, "stroke-dasharray": look.dash };
      for (const name in at) rule.setAttribute(name, at[name]);
      svg.append(rule);
    }
    svg.append(polygon(look.outline, 9, width / 2, 7, { fill: "var(--paper)", stroke: look.colour }));
    if (look.inside.length) svg.append(polygon(look.inside, 9, width / 2, 7, { fill: look.colour }));
    return svg;
  }

  return { draw, swatch };
})();
