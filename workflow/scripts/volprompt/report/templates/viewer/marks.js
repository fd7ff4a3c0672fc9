// What is drawn on a canvas: masks, outlines, points, letters and the bar.
const marks = (() => {
  const layer = document.createElement("canvas");

  function fill(context, mask, rows, columns, [red, green, blue], box, opacity = 90) {
    paint(context, rows, columns, box, (out) => {
      for (let k = 0; k < mask.length; k++) {
        out[4 * k] = red;
        out[4 * k + 1] = green;
        out[4 * k + 2] = blue;
        out[4 * k + 3] = mask[k] ? opacity : 0;
      }
    });
  }

  // Grey values of a plane.
  function grey(context, values, rows, columns, box) {
    paint(context, rows, columns, box, (out) => {
      for (let k = 0; k < values.length; k++) {
        out[4 * k] = out[4 * k + 1] = out[4 * k + 2] = values[k];
        out[4 * k + 3] = 255;
      }
    });
  }

  function paint(context, rows, columns, box, write) {
    layer.width = columns;
    layer.height = rows;
    const own = layer.getContext("2d");
    const pixels = own.createImageData(columns, rows);
    write(pixels.data);
    own.putImageData(pixels, 0, 0);
    context.drawImage(layer, box.left, box.top, box.width, box.height);
  }

  // Edges (0 top, 1 right, 2 bottom, 3 left) that a border joins, by the corners that are set
  // (1 upper left, 2 upper right, 4 lower right, 8 lower left).
  const SEGMENTS = {
    1: [[3, 0]], 2: [[0, 1]], 3: [[3, 1]], 4: [[1, 2]], 5: [[3, 0], [1, 2]], 6: [[0, 2]], 7: [[3, 2]],
    8: [[2, 3]], 9: [[0, 2]], 10: [[0, 1], [2, 3]], 11: [[1, 2]], 12: [[1, 3]], 13: [[0, 1]], 14: [[3, 0]],
  };

  // The mask's border between pixel centres (marching squares), stroked once for each width and colour.
  function outline(context, mask, rows, columns, box, strokes) {
    const sx = box.width / columns, sy = box.height / rows;
    const at = (y, x) => (y >= 0 && x >= 0 && y < rows && x < columns ? mask[y * columns + x] : 0);
    const path = new Path2D();
    for (let y = -1; y < rows; y++) {
      for (let x = -1; x < columns; x++) {
        const kind = at(y, x) + 2 * at(y, x + 1) + 4 * at(y + 1, x + 1) + 8 * at(y + 1, x);
        if (kind === 0 || kind === 15) continue;
        // The cell's corners are the centres of four pixels; its edges' middles lie on pixel borders.
        const left = box.left + (x + 0.5) * sx, top = box.top + (y + 0.5) * sy;
        const edges = [[left + sx / 2, top], [left + sx, top + sy / 2], [left + sx / 2, top + sy], [left, top + sy / 2]];
        for (const [from, to] of SEGMENTS[kind]) {
          path.moveTo(...edges[from]);
          path.lineTo(...edges[to]);
        }
      }
    }
    context.lineCap = "round";
    for (const [thick, colour] of strokes) {
      context.lineWidth = thick;
      context.strokeStyle = colour;
      context.stroke(path);
    }
  }

  function star(cx, cy, size) {
    const path = new Path2D();
    for (let k = 0; k < 10; k++) {
      const radius = k % 2 ? 0.42 * size : size, angle = (Math.PI * k) / 5;
      path[k ? "lineTo" : "moveTo"](cx + radius * Math.sin(angle), cy - radius * Math.cos(angle));
    }
    path.closePath();
    return path;
  }

  function cross(cx, cy, arm) {
    const path = new Path2D();
    for (const sign of [1, -1]) {
      path.moveTo(cx - arm, cy - arm * sign);
      path.lineTo(cx + arm, cy + arm * sign);
    }
    return path;
  }

  // Light text on a dark rim.
  function write(context, text, x, y, { strength = 1, align = "center" } = {}) {
    context.globalAlpha = strength;
    context.font = "600 12px system-ui, sans-serif";
    context.textAlign = align;
    context.textBaseline = "middle";
    context.lineWidth = 3;
    context.strokeStyle = "rgba(0, 0, 0, 0.7)";
    context.strokeText(text, x, y);
    context.fillStyle = "#e8edf2";
    context.fillText(text, x, y);
    context.globalAlpha = 1;
  }

  // A bar of so many millimetres, at most a third of the smallest side.
  function bar(context, box, width, height) {
    const length = [100, 50, 20, 10, 5, 2, 1].find((mm) => mm * box.per_mm <= Math.min(width, height) / 3);
    if (!length) return;
    const long = length * box.per_mm;
    for (const [thick, colour] of [[6, "rgba(0, 0, 0, 0.7)"], [3, "#e8edf2"]]) {
      context.lineCap = "butt";
      context.lineWidth = thick;
      context.strokeStyle = colour;
      context.beginPath();
      context.moveTo(12, height - 14);
      context.lineTo(12 + long, height - 14);
      context.stroke();
    }
    write(context, `${length} mm`, 12 + long / 2, height - 26);
  }

  return { bar, cross, fill, grey, outline, star, write };
})();
