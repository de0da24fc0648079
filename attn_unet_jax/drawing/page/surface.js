"use strict";
// Truth and prediction as shaded surfaces side by side, turned by pointer, keys or by themselves.
const surfaces = (() => {
  const { data, element } = charts;
  const SIZE = 420, LIGHT = [-0.4, 0.75, 0.53];

  // The voxels at the border of each class: their places in mm around the middle, their normals
  // and their class. X points to the patient's right, Y to the front, Z to the head.
  function findSurface(volume, one) {
    const [nx, ny, nz] = one.shape, [sx, sy, sz] = one.spacing;
    const points = [];
    const at = (x, y, z) =>
      x < 0 || y < 0 || z < 0 || x >= nx || y >= ny || z >= nz ? 0 : volume[x + nx * (y + ny * z)];
    for (let z = 0; z < nz; z++) {
      for (let y = 0; y < ny; y++) {
        for (let x = 0; x < nx; x++) {
          const value = volume[x + nx * (y + ny * z)];
          if (!value) continue;
          const isInner = at(x - 1, y, z) === value && at(x + 1, y, z) === value &&
            at(x, y - 1, z) === value && at(x, y + 1, z) === value &&
            at(x, y, z - 1) === value && at(x, y, z + 1) === value;
          if (isInner) continue;
          // From the organ to the outside, over two voxels so that steps are smoothed.
          let gx = 0, gy = 0, gz = 0;
          for (let k = -2; k <= 2; k++) {
            for (let j = -2; j <= 2; j++) {
              for (let i = -2; i <= 2; i++) {
                if (at(x + i, y + j, z + k) === value) continue;
                const far = Math.hypot(i * sx, j * sy, k * sz) ** 2;
                gx += (i * sx) / far;
                gy += (j * sy) / far;
                gz += (k * sz) / far;
              }
            }
          }
          const length = Math.hypot(gx, gy, gz) || 1;
          const place = [(x - nx / 2) * sx, (y - ny / 2) * sy, (z - nz / 2) * sz];
          points.push(...place, gx / length, gy / length, gz / length, value);
        }
      }
    }
    return Float32Array.from(points);
  }

  // Both surfaces share the middle and the scale, so that they can be compared.
  function frame(clouds) {
    const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
    for (const cloud of clouds) {
      for (let i = 0; i < cloud.length; i += 7) {
        for (let k = 0; k < 3; k++) {
          low[k] = Math.min(low[k], cloud[i + k]);
          high[k] = Math.max(high[k], cloud[i + k]);
        }
      }
    }
    if (low[0] === Infinity) return null;
    const middle = low.map((one, k) => (one + high[k]) / 2);
    return { middle, scale: (0.94 * SIZE) / Math.hypot(...low.map((one, k) => high[k] - one + 4)) };
  }

  function shade(hex) {
    return [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));
  }

  function render(canvas, cloud, framed, colours, turn, spacing) {
    canvas.width = canvas.height = SIZE;
    const pen = canvas.getContext("2d"), pixels = pen.createImageData(SIZE, SIZE);
    const depth = new Float32Array(SIZE * SIZE).fill(-Infinity);
    const [cy, sy] = [Math.cos(turn.yaw), Math.sin(turn.yaw)];
    const [cp, sp] = [Math.cos(turn.pitch), Math.sin(turn.pitch)];
    const half = Math.max(1, Math.ceil((Math.max(...spacing) * framed.scale) / 1.6));
    // To the viewer's axes: right, towards the viewer, up.
    const turned = (x, y, z) => {
      const right = -x * cy + y * sy, near = x * sy + y * cy;
      return [right, near * cp + z * sp, z * cp - near * sp];
    };
    for (let i = 0; i < cloud.length; i += 7) {
      const [x, y, z] = [0, 1, 2].map((k) => cloud[i + k] - framed.middle[k]);
      const [right, near, up] = turned(x, y, z);
      const normal = turned(cloud[i + 3], cloud[i + 4], cloud[i + 5]);
      const facing = normal[0] * LIGHT[0] + normal[1] * LIGHT[1] + normal[2] * LIGHT[2];
      const light = 0.3 + 0.7 * Math.max(0, facing);
      const colour = colours[(cloud[i + 6] - 1) % colours.length];
      const column = Math.round(SIZE / 2 + right * framed.scale);
      const row = Math.round(SIZE / 2 - up * framed.scale);
      for (let r = Math.max(0, row - half); r <= Math.min(SIZE - 1, row + half); r++) {
        for (let c = Math.max(0, column - half); c <= Math.min(SIZE - 1, column + half); c++) {
          const at = r * SIZE + c;
          if (depth[at] >= near) continue;
          depth[at] = near;
          for (let k = 0; k < 3; k++) pixels.data[4 * at + k] = colour[k] * light;
          pixels.data[4 * at + 3] = 255;
        }
      }
    }
    pen.putImageData(pixels, 0, 0);
  }

  // Builds the two canvases; returns what shows another case.
  function build(root) {
    const turn = { yaw: 0.5, pitch: 0.3 };
    let shown = null, moves = false;
    const title = element("h3", {}, root, "Surfaces");
    const about = element("p", { class: "soft" }, root);
    const what = data.kinds.length > 1 ? "both" : "them";
    about.textContent = `Drag, or use the arrow keys, to turn ${what}. The first view is from the ` +
      "front, a little from above.";
    const controls = element("div", { class: "controls" }, root);
    const label = element("label", {}, controls);
    const box = element("input", { type: "checkbox" }, label);
    label.append(" turn by themselves");
    const grid = element("div", { class: "surfaces" }, root);
    const views = data.kinds.map((kind) => {
      const figure = element("figure", {}, grid);
      const canvas = element("canvas", { role: "img", tabindex: "0" }, figure);
      element("figcaption", {}, figure, kind);
      return { kind, canvas };
    });

    function draw() {
      if (!shown) return;
      for (const { kind, canvas } of views) {
        const colours = data.classes.map((one) => shade(one[kind]));
        render(canvas, shown.clouds[kind], shown.framed, colours, turn, shown.one.spacing);
        const [yaw, pitch] = [turn.yaw, turn.pitch].map((one) => Math.round((one * 180) / Math.PI));
        const said = `${shown.one.id}: surface of the ${kind}, turned by ${yaw} and ${pitch} degrees`;
        canvas.setAttribute("aria-label", said);
      }
    }

    function change(yaw, pitch) {
      turn.yaw = (turn.yaw + yaw) % (2 * Math.PI);
      turn.pitch = Math.max(-1.5, Math.min(1.5, turn.pitch + pitch));
      draw();
    }

    for (const { canvas } of views) {
      canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
      canvas.addEventListener("pointermove", (event) => {
        if (event.buttons) change(event.movementX / 90, event.movementY / 90);
      });
      canvas.addEventListener("keydown", (event) => {
        const steps = { ArrowLeft: [-0.2, 0], ArrowRight: [0.2, 0], ArrowUp: [0, -0.2], ArrowDown: [0, 0.2] };
        const step = steps[event.key];
        if (!step) return;
        event.preventDefault();
        change(...step);
      });
    }
    function rotate() {
      if (!moves) return;
      change(0.02, 0);
      requestAnimationFrame(rotate);
    }
    box.addEventListener("change", () => {
      moves = box.checked;
      if (moves) requestAnimationFrame(rotate);
    });

    return (one, volumes) => {
      one.clouds ??= Object.fromEntries(
        data.kinds.map((kind) => [kind, findSurface(volumes[kind], one)]),
      );
      const framed = frame(Object.values(one.clouds));
      for (const part of [title, about, controls, grid]) part.hidden = !framed;
      shown = framed && { one, clouds: one.clouds, framed };
      draw();
    };
  }

  return { build };
})();
