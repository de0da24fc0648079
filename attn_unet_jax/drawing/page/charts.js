"use strict";
// Curves and distributions as SVG, drawn from the numbers in the page. No library is needed.
const charts = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const width = 560, height = 300, left = 62, right = 12, top = 12, bottom = 34;

  function node(name, attributes, parent, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    if (parent) parent.append(made);
    return made;
  }

  function element(name, attributes, parent, text) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    if (parent) parent.append(made);
    return made;
  }

  function show(value) {
    const small = value !== 0 && Math.abs(value) < 1e-3;
    const short = Number(value.toPrecision(4));
    return small ? short.toExponential() : short.toString();
  }

  // Round numbers: steps of 1, 2 or 5 times a power of ten.
  function ticks(low, high, most) {
    if (!(high > low)) return [low];
    let step = 10 ** Math.floor(Math.log10((high - low) / most));
    step *= [1, 2, 5, 10].find((factor) => (high - low) / (step * factor) <= most);
    const found = [];
    for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) {
      found.push(Number((n * step).toPrecision(12)));
    }
    return found;
  }

  function place(value, low, high, from, to) {
    return high > low ? from + ((value - low) / (high - low)) * (to - from) : (from + to) / 2;
  }

  function limits(panel, values) {
    let low = Math.min(...values), high = Math.max(...values);
    if (panel.limits) {
      low = Math.min(low, panel.limits[0]);
      high = Math.max(high, panel.limits[1]);
    } else if (panel.logarithmic) {
      low = Math.floor(low);
      high = Math.max(Math.ceil(high), low + 1);
    } else {
      const margin = high > low ? 0.04 * (high - low) : 0.5;
      low -= margin;
      high += margin;
    }
    return [low, high];
  }

  function frame(label, low, high, logarithmic) {
    const svg = node("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
    const marks = logarithmic ? ticks(low, high, 6).filter(Number.isInteger) : ticks(low, high, 6);
    for (const mark of marks) {
      const y = place(mark, low, high, height - bottom, top);
      node("line", { class: "grid", x1: left, x2: width - right, y1: y, y2: y }, svg);
      const said = logarithmic ? show(10 ** mark) : show(mark);
      node("text", { x: left - 6, y: y + 4, "text-anchor": "end" }, svg, said);
    }
    return svg;
  }

  function drawPanel(panel, into) {
    const figure = element("figure", {}, document.getElementById(into));
    element("figcaption", {}, figure, panel.title);
    const value = (one) => (panel.logarithmic ? Math.log10(one) : one);
    const curves = panel.curves.map((curve, index) => ({
      ...curve,
      style: `s${panel.curves.length > 1 ? index % 4 : 3}`,
      dash: panel.curves.length > 1 ? `d${index % 3}` : "d0",
      points: curve.points.filter(([, one]) => !panel.logarithmic || one > 0),
    }));
    const all = curves.flatMap((curve) => curve.points);
    if (!all.length) {
      element("p", { class: "soft" }, figure, "not measured yet");
      return;
    }
    const [low, high] = limits(panel, all.map(([, one]) => value(one)));
    const [first, last] = data.epochs;
    const x = (epoch) => place(epoch, first, last, left, width - right);
    const y = (one) => place(value(one), low, high, height - bottom, top);
    const names = curves.map((curve) => curve.name).join(", ");
    const ends = curves
      .filter((curve) => curve.points.length)
      .map((curve) => `${curve.name} ends at ${show(curve.points.at(-1)[1])}`);
    const label = `${panel.title} over ${last} epochs: ${names}; ${ends.join(", ")}`;
    const svg = frame(label, low, high, panel.logarithmic);
    for (const epoch of ticks(first, last, 8).filter(Number.isInteger)) {
      const attributes = { x: x(epoch), y: height - 14, "text-anchor": "middle" };
      node("text", attributes, svg, String(epoch));
    }
    node("text", { x: (left + width) / 2, y: height - 1, "text-anchor": "middle" }, svg, "epoch");
    for (const curve of curves) {
      const path = curve.points.map(([epoch, one]) => `${x(epoch)},${y(one)}`).join(" ");
      node("polyline", { class: `line ${curve.style} ${curve.dash}`, points: path }, svg);
      if (curve.points.length <= 40) {
        for (const [epoch, one] of curve.points) {
          node("circle", { class: curve.style, cx: x(epoch), cy: y(one), r: 3.5 }, svg);
        }
      }
    }
    figure.append(svg);
    const keys = element("div", {}, figure);
    for (const curve of curves) {
      const key = element("span", { class: "key" }, keys);
      const line = node("svg", { viewBox: "0 0 30 10", "aria-hidden": "true" }, key);
      const ends = { x1: 0, x2: 30, y1: 5, y2: 5, "stroke-width": 3 };
      node("line", { class: `${curve.style} ${curve.dash}`, ...ends }, line);
      key.append(curve.name);
    }
    hover(svg, figure, curves, x);
  }

  // Says the values of the epoch under the pointer; the arrow keys move it.
  function hover(svg, figure, curves, x) {
    const said = element("div", { class: "said", "aria-live": "polite" }, figure);
    const epochs = [...new Set(curves.flatMap((curve) => curve.points.map(([one]) => one)))];
    epochs.sort((a, b) => a - b);
    const span = { y1: top, y2: height - bottom, x1: -9, x2: -9 };
    const cursor = node("line", { class: "cursor", ...span }, svg);
    let at = epochs.length - 1;
    function tell(index) {
      at = Math.max(0, Math.min(epochs.length - 1, index));
      const epoch = epochs[at];
      cursor.setAttribute("x1", x(epoch));
      cursor.setAttribute("x2", x(epoch));
      const values = curves.flatMap((curve) => {
        const found = curve.points.find(([one]) => one === epoch);
        return found ? [`${curve.name} ${show(found[1])}`] : [];
      });
      said.textContent = `epoch ${epoch}: ${values.join(", ")}`;
    }
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const pointer = ((event.clientX - box.left) / box.width) * width;
      const far = epochs.map((epoch) => Math.abs(x(epoch) - pointer));
      tell(far.indexOf(Math.min(...far)));
    });
    svg.setAttribute("tabindex", "0");
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      tell(at + step);
    });
    tell(at);
  }

  // A dot for each case; the median as a line; the worst by name.
  function drawSpread(spread) {
    const figure = element("figure", {}, document.getElementById("spreads"));
    element("figcaption", {}, figure, spread.title);
    const values = spread.cases.map(([, one]) => one);
    const [low, high] = limits({ limits: spread.limits }, values);
    const tall = 96, row = 40;
    const label = `${spread.title} of ${values.length} cases, from ${show(Math.min(...values))} to ` +
      `${show(Math.max(...values))}, median ${show(spread.median)}`;
    const svg = node("svg", { viewBox: `0 0 ${width} ${tall}`, role: "group", "aria-label": label });
    for (const mark of ticks(low, high, 6)) {
      const x = place(mark, low, high, 20, width - 20);
      node("line", { class: "grid", x1: x, x2: x, y1: 8, y2: tall - 26 }, svg);
      node("text", { x, y: tall - 8, "text-anchor": "middle" }, svg, show(mark));
    }
    const middle = place(spread.median, low, high, 20, width - 20);
    const line = { x1: middle, x2: middle, y1: 8, y2: tall - 26, "stroke-width": 3 };
    node("line", { class: "s1", ...line }, svg);
    const said = element("div", { class: "said", "aria-live": "polite" });
    const rest = `median ${show(spread.median)}` +
      (spread.worst ? `; worst: ${spread.worst} ${show(spread.worstValue)}` : "");
    said.textContent = rest;
    spread.cases.forEach(([id, one], index) => {
      const to = data.places[id];
      const link = node("a", { ...(to === undefined ? {} : { href: "#case-" + to }), tabindex: 0, "aria-label": `${id} ${show(one)}` }, svg);
      // Neighbours lie on three rows, so that equal values stay apart.
      const at = { cx: place(one, low, high, 20, width - 20), cy: row + ((index % 3) - 1) * 13, r: 5.5 };
      const dot = node("circle", { class: "case", ...at }, link);
      node("title", {}, dot, `${id}: ${show(one)}`);
      for (const kind of ["pointerenter", "focus"]) {
        (kind === "focus" ? link : dot).addEventListener(kind, () => {
          said.textContent = `${id}: ${show(one)}; ${rest}`;
        });
      }
    });
    figure.append(svg, said);
  }

  // Each case by two runs; on the diagonal both are alike.
  function drawScatter(scatter) {
    const figure = element("figure", {}, document.getElementById("scatters"));
    element("figcaption", {}, figure, scatter.title);
    const size = 420, edge = 52;
    const [low, high] = limits({ limits: scatter.limits }, scatter.cases.flatMap(([, a, b]) => [a, b]));
    const label = `${scatter.title}: ${scatter.cases.length} cases. ${scatter.about}`;
    const svg = node("svg", { viewBox: `0 0 ${size} ${size}`, role: "group", "aria-label": label });
    const x = (one) => place(one, low, high, edge, size - 12);
    const y = (one) => place(one, low, high, size - edge, 12);
    for (const mark of ticks(low, high, 5)) {
      node("line", { class: "grid", x1: x(mark), x2: x(mark), y1: y(low), y2: y(high) }, svg);
      node("line", { class: "grid", x1: x(low), x2: x(high), y1: y(mark), y2: y(mark) }, svg);
      node("text", { x: x(mark), y: size - edge + 18, "text-anchor": "middle" }, svg, show(mark));
      node("text", { x: edge - 6, y: y(mark) + 4, "text-anchor": "end" }, svg, show(mark));
    }
    node("line", { class: "s1 d1", x1: x(low), y1: y(low), x2: x(high), y2: y(high), "stroke-width": 2 }, svg);
    const middle = (edge + size - 12) / 2;
    node("text", { x: middle, y: size - 8, "text-anchor": "middle" }, svg, scatter.first);
    const turned = `translate(14 ${size - middle}) rotate(-90)`;
    node("text", { transform: turned, "text-anchor": "middle" }, svg, scatter.second);
    const said = element("div", { class: "said", "aria-live": "polite" });
    for (const [id, a, b] of scatter.cases) {
      const words = `${id}: ${show(a)} and ${show(b)}`;
      const to = data.places[id];
      const link = node("a", { ...(to === undefined ? {} : { href: "#case-" + to }), tabindex: 0, "aria-label": words }, svg);
      const dot = node("circle", { class: "case", cx: x(a), cy: y(b), r: 5.5 }, link);
      node("title", {}, dot, words);
      for (const [part, kind] of [[dot, "pointerenter"], [link, "focus"]]) {
        part.addEventListener(kind, () => (said.textContent = words));
      }
    }
    figure.append(svg, said, element("p", {}, figure, scatter.about));
  }

  data.scatters.forEach(drawScatter);
  data.panels.forEach((panel) => drawPanel(panel, "curves"));
  data.gates.forEach((panel) => drawPanel(panel, "gates"));
  data.spreads.forEach(drawSpread);
  return { data, element };
})();
