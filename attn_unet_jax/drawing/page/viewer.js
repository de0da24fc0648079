"use strict";
// The viewer of cases: three planes of each, drawn on canvases from the volumes in the page.
(() => {
  const { data, element } = charts;
  const { kinds } = data; // of masks: truth and prediction; of an answer the prediction alone
  const isDashed = (kind) => kind === "prediction" && kinds.length > 1;
  const allShown = () => Object.fromEntries(kinds.map((kind) => [kind, true]));
  const planes = ["sagittal", "coronal", "axial"];
  const sides = [["A", "P"], ["R", "L"], ["R", "L"]];

  // Code -> HU, the inverse of what the page was written with.
  const hounsfield = Float32Array.from({ length: 256 }, (_, code) => {
    const known = data.codes;
    let i = 0;
    while (i < known.length - 2 && code > known[i + 1][1]) i++;
    const [[hu0, c0], [hu1, c1]] = [known[i], known[i + 1]];
    return hu0 + ((code - c0) / (c1 - c0)) * (hu1 - hu0);
  });

  async function decode(place, shape) {
    const text = document.getElementById(place).textContent;
    const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    const values = new Uint8Array(await new Response(stream).arrayBuffer());
    for (let start = 0; start < values.length; start += shape[0]) {
      for (let x = 1; x < shape[0]; x++) values[start + x] += values[start + x - 1];
    }
    return values;
  }

  async function load(one) {
    one.loading ??= (async () => {
      const found = {};
      for (const name of Object.keys(one.volumes)) {
        found[name] = await decode(one.volumes[name], one.shape);
      }
      found.maps = {};
      for (const name of Object.keys(one.maps)) {
        found.maps[name] = await decode(one.maps[name].place, one.map_shape);
      }
      return found;
    })();
    return one.loading;
  }

  // A slice as a radiologist sees it, row after row, and its size.
  function cut(volume, shape, axis, number) {
    const across = axis === 0 ? 1 : 0, down = axis === 2 ? 1 : 2;
    const columns = shape[across], rows = shape[down];
    const strides = [1, shape[0], shape[0] * shape[1]];
    const out = new Uint8Array(rows * columns);
    for (let r = 0; r < rows; r++) {
      let from = number * strides[axis] + (rows - 1 - r) * strides[down];
      from += (columns - 1) * strides[across];
      for (let c = 0; c < columns; c++) out[r * columns + c] = volume[from - c * strides[across]];
    }
    return { values: out, rows, columns, across, down };
  }

  // Closed lines around the pixels of a class, for dashes that run along them.
  function outline(plane, value) {
    const { values, rows, columns } = plane;
    const inside = (r, c) =>
      r >= 0 && c >= 0 && r < rows && c < columns && values[r * columns + c] === value;
    const next = new Map();
    const add = (x0, y0, x1, y1) => {
      const key = y0 * (columns + 1) + x0;
      if (!next.has(key)) next.set(key, []);
      next.get(key).push([x1, y1]);
    };
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++) {
        if (!inside(r, c)) continue;
        if (!inside(r - 1, c)) add(c, r, c + 1, r);
        if (!inside(r, c + 1)) add(c + 1, r, c + 1, r + 1);
        if (!inside(r + 1, c)) add(c + 1, r + 1, c, r + 1);
        if (!inside(r, c - 1)) add(c, r + 1, c, r);
      }
    }
    const lines = [];
    for (const [key, starts] of next) {
      while (starts.length) {
        const line = [[key % (columns + 1), Math.floor(key / (columns + 1))]];
        let ends = starts;
        while (ends && ends.length) {
          const [x, y] = ends.pop();
          line.push([x, y]);
          ends = next.get(y * (columns + 1) + x);
        }
        lines.push(line);
      }
    }
    return lines;
  }

  function paint(canvas, one, volumes, axis, number, state) {
    const grey = cut(volumes.image, one.shape, axis, number);
    const wide = one.spacing[grey.across] * grey.columns, tall = one.spacing[grey.down] * grey.rows;
    const scale = Math.min(state.size / wide, state.size / tall);
    canvas.width = Math.max(1, Math.round(wide * scale));
    canvas.height = Math.max(1, Math.round(tall * scale));
    const pen = canvas.getContext("2d");
    const [low, high] = state.window;
    const pixels = new ImageData(grey.columns, grey.rows);
    for (let i = 0; i < grey.values.length; i++) {
      const shade = (255 * (hounsfield[grey.values[i]] - low)) / (high - low);
      pixels.data[4 * i] = pixels.data[4 * i + 1] = pixels.data[4 * i + 2] = shade;
      pixels.data[4 * i + 3] = 255;
    }
    stretch(pen, pixels, canvas);
    if (state.map in volumes.maps) paintMap(pen, canvas, one, volumes, axis, number, state);
    const sx = canvas.width / grey.columns, sy = canvas.height / grey.rows;
    for (const kind of kinds) {
      if (!state.shown[kind]) continue;
      const plane = cut(volumes[kind], one.shape, axis, number);
      data.classes.forEach((about, index) => {
        pen.strokeStyle = about[kind];
        pen.lineWidth = state.line;
        pen.setLineDash(isDashed(kind) ? [3 * state.line, 2 * state.line] : []);
        pen.beginPath();
        for (const line of outline(plane, index + 1)) {
          line.forEach(([x, y], i) => (i ? pen.lineTo(x * sx, y * sy) : pen.moveTo(x * sx, y * sy)));
        }
        pen.stroke();
      });
    }
    return { sx, sy, ...grey };
  }

  function stretch(pen, pixels, canvas) {
    const small = new OffscreenCanvas(pixels.width, pixels.height);
    small.getContext("2d").putImageData(pixels, 0, 0);
    pen.imageSmoothingEnabled = true;
    pen.drawImage(small, 0, 0, canvas.width, canvas.height);
  }

  // The colours of a map from 0 to 1, as red, green and blue; they lie over the image the denser,
  // the higher the value is.
  const ramp = [[0, 0, 0], [110, 20, 110], [220, 60, 70], [250, 150, 20], [250, 250, 110]];
  function colour(share) {
    const at = share * (ramp.length - 1), i = Math.min(ramp.length - 2, Math.floor(at));
    return [0, 1, 2].map((k) => ramp[i][k] + (at - i) * (ramp[i + 1][k] - ramp[i][k]));
  }

  function paintMap(pen, canvas, one, volumes, axis, number, state) {
    // The map's grid is coarser and covers the same part of the scan.
    const at = Math.floor(((number + 0.5) * one.map_shape[axis]) / one.shape[axis]);
    const plane = cut(volumes.maps[state.map], one.map_shape, axis, at);
    const pixels = new ImageData(plane.columns, plane.rows);
    const table = Array.from({ length: 256 }, (_, code) => colour(code / 255));
    for (let i = 0; i < plane.values.length; i++) {
      pixels.data.set(table[plane.values[i]], 4 * i);
      pixels.data[4 * i + 3] = 40 + 0.6 * plane.values[i];
    }
    stretch(pen, pixels, canvas);
  }

  function choices(parent, title, name, options, chosen, change) {
    const group = element("fieldset", {}, parent);
    element("legend", {}, group, title);
    for (const [text, value] of options) {
      const label = element("label", {}, group);
      const button = element("input", { type: "radio", name }, label);
      button.checked = value === chosen;
      button.addEventListener("change", () => change(value));
      label.append(" " + text);
    }
    return group;
  }

  // Where truth and prediction of a class share a colour, one key has it for both.
  function explainLines(legend) {
    const say = (kind) => `${kind} (${isDashed(kind) ? "dashed" : "solid"})`;
    const named = (one) => one.name + (kinds.length > 1 && !one.known ? " (no truth)" : "");
    const isShared = data.classes.every((one) => kinds.every((kind) => one[kind] === one[kinds[0]]));
    if (!isShared) {
      for (const one of data.classes) {
        for (const kind of kinds) {
          if (kind === "truth" && !one.known) continue;
          addKey(legend, one[kind], isDashed(kind), `${named(one)}, ${say(kind)}`);
        }
      }
      return;
    }
    for (const one of data.classes) addKey(legend, one[kinds[0]], false, named(one));
    if (kinds.length < 2) return;
    for (const kind of kinds) addKey(legend, "currentColor", isDashed(kind), say(kind));
  }

  function addKey(legend, colour, dashed, text) {
    const key = element("span", { class: "key" }, legend);
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 30 10");
    svg.setAttribute("aria-hidden", "true");
    const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
    const ends = { x1: 0, x2: 30, y1: 5, y2: 5, stroke: colour, "stroke-width": 4 };
    for (const [name, value] of Object.entries(ends)) line.setAttribute(name, value);
    line.setAttribute("stroke-dasharray", dashed ? "7 4" : "none");
    svg.append(line);
    key.append(svg, text);
  }

  function build() {
    const root = document.getElementById("viewer");
    if (!root || !data.shown.length) return;
    const state = {
      one: null, at: [0, 0, 0], window: data.windows[0][1], shown: allShown(),
      map: "", size: 640, line: 3,
    };
    const controls = element("div", { class: "controls" }, root);
    const label = element("label", { class: "choice" }, controls, "Case");
    const select = element("select", { id: "case-choice" }, label);
    label.hidden = data.shown.length < 2;
    data.shown.forEach((one, index) => {
      element("option", { value: index }, select, `${one.role}: ${one.id}, ${one.score}`);
    });
    const windows = data.windows.map(([name, [low, high]]) => [`${name} (${low} to ${high} HU)`, name]);
    choices(controls, "Window", "window", windows, data.windows[0][0], (name) => {
      state.window = data.windows.find(([one]) => one === name)[1];
      draw();
    });
    const lines = element("fieldset", {}, controls);
    element("legend", {}, lines, "Outlines");
    for (const kind of kinds) {
      const about = element("label", {}, lines);
      const box = element("input", { type: "checkbox" }, about);
      box.checked = true;
      box.addEventListener("change", () => {
        state.shown[kind] = box.checked;
        draw();
      });
      about.append(" " + kind);
    }
    const mapControls = element("div", { class: "controls" }, root);
    const legend = element("div", {}, root);
    explainLines(legend);
    const about = element("p", { class: "soft" }, root);
    const grid = element("div", { class: "planes" }, root);
    const views = [2, 1, 0].map((axis) => {
      const figure = element("figure", {}, grid);
      const caption = element("figcaption", {}, figure);
      const canvas = element("canvas", { role: "img" }, figure);
      const said = `${planes[axis]} slice`;
      const slider = element("input", { type: "range", min: 0, "aria-label": said }, figure);
      slider.addEventListener("input", () => {
        state.at[axis] = Number(slider.value);
        draw();
      });
      const view = { axis, caption, canvas, slider };
      // A click takes the other two planes to the same place.
      canvas.addEventListener("click", (event) => {
        const box = canvas.getBoundingClientRect(), { shape } = state.one;
        const right = (event.clientX - box.left) / box.width;
        const down = (event.clientY - box.top) / box.height;
        const { across, down: along } = view.painted;
        state.at[across] = Math.min(shape[across] - 1, Math.floor((1 - right) * shape[across]));
        state.at[along] = Math.min(shape[along] - 1, Math.floor((1 - down) * shape[along]));
        draw();
      });
      return view;
    });

    const showSurfaces = surfaces.build(element("div", { id: "surfaces" }, root));

    async function draw() {
      const one = state.one, volumes = await load(one);
      if (one !== state.one) return; // another case was chosen in the meantime
      for (const view of views) {
        const { axis } = view, number = state.at[axis];
        view.slider.max = one.shape[axis] - 1;
        view.slider.value = number;
        view.painted = paint(view.canvas, one, volumes, axis, number, state);
        const [first, last] = sides[axis];
        const place = `${planes[axis]}, ${number + 1} of ${one.shape[axis]}`;
        view.slider.setAttribute("aria-valuetext", `${number + 1} of ${one.shape[axis]}`);
        view.caption.textContent = `${place} (${first} left, ${last} right)`;
        const what = Object.keys(state.shown).filter((kind) => state.shown[kind]).join(" and ");
        const alt = `${one.id}, ${place}, window ${state.window.join(" to ")} HU` +
          (what ? `, outlines of ${what}` : "") + (state.map ? `, overlay ${state.map}` : "");
        view.canvas.setAttribute("aria-label", alt);
      }
    }

    function offerMaps() {
      mapControls.replaceChildren();
      const names = Object.keys(state.one.maps);
      if (!names.includes(state.map)) state.map = "";
      if (!names.length) return;
      const options = [["off", ""], ...names.map((name) => [name, name])];
      choices(mapControls, "Overlay", "map", options, state.map, (name) => {
        state.map = name;
        tellMap();
        draw();
      });
      state.bar = element("div", { "aria-live": "polite" }, mapControls);
      tellMap();
    }

    // The colour bar of the gate that is shown, and where its coefficients are high.
    function tellMap() {
      if (!state.bar) return;
      state.bar.replaceChildren();
      const one = state.one.maps[state.map];
      if (!one) return;
      const [low, high] = [one.low, one.high].map((value) => value.toFixed(2));
      const stops = ramp.map((shade) => `rgb(${shade})`).join(", ");
      state.bar.append(`${low} `);
      const strip = element("span", { class: "ramp", role: "img" }, state.bar);
      strip.setAttribute("aria-label", `colours from ${low}, dark, to ${high}, yellow`);
      strip.style.background = `linear-gradient(to right, ${stops})`;
      state.bar.append(` ${high}${one.about ? "; " + one.about : ""}`);
    }

    function choose(index) {
      state.one = data.shown[index];
      state.at = [...state.one.centre];
      select.value = index;
      const { id, score } = state.one;
      about.textContent = `${[id, score].filter(Boolean).join(": ")}. Shown: ${state.one.about}. ` +
        "A click into a plane takes the others there.";
      offerMaps();
      draw();
      const { one } = state;
      load(one).then((volumes) => {
        if (one === state.one) showSurfaces(one, volumes);
      });
    }

    select.addEventListener("change", () => choose(Number(select.value)));
    function follow() {
      const index = data.shown.findIndex((one) => `#case-${data.places[one.id]}` === location.hash);
      if (index >= 0) {
        choose(index);
        root.scrollIntoView();
      }
    }
    addEventListener("hashchange", follow);
    choose(0);
    follow();
  }

  async function buildThumbs() {
    const root = document.getElementById("thumbs"), keys = document.getElementById("keys");
    if (keys) explainLines(keys);
    for (const one of data.thumbs) {
      const figure = element("figure", { id: "case-" + data.places[one.id] }, root);
      const alt = `${one.id}, axial slice, outlines of ${kinds.join(" and ")}`;
      const canvas = element("canvas", { role: "img", "aria-label": alt }, figure);
      element("figcaption", {}, figure, `${one.id}: ${one.score}`);
      const state = {
        window: data.windows[0][1], shown: allShown(), map: "",
        ...(root.classList.contains("pairs") ? { size: 640, line: 4 } : { size: 320, line: 2 }),
      };
      paint(canvas, one, await load(one), 2, 0, state);
    }
  }

  build();
  buildThumbs();
})();
