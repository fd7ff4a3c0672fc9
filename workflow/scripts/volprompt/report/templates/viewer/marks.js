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

  // The mask's border, stroked once for each width and colour. It passes between pixel centres (marching squares), or with
  // `square` along the sides of pixels, where these are so long that cut corners would tell of a shape that is not there.
  function outline(context, mask, rows, columns, box, strokes, square) {
    const sx = box.width / columns, sy = box.height / rows;
    const at = (y, x) => (y >= 0 && x >= 0 && y < rows && x < columns ? mask[y * columns + x] : 0);
    const path = new Path2D();
    for (let y = -1; y < rows; y++) {
      for (let x = -1; x < columns; x++) {
        const kind = at(y, x) + 2 * at(y, x + 1) + 4 * at(y + 1, x + 1) + 8 * at(y + 1, x);
        if (kind === 0 || kind === 15) continue;
        // The cell's corners are the centres of four pixels; its edges' middles lie on pixel borders.
        const left = box.left + (x + 0.5) * sx, top = box.top + (y + 0.5) * sy;
        const middle = [left + sx / 2, top + sy / 2];
        const edges = [[middle[0], top], [left + sx, middle[1]], [middle[0], top + sy], [left, middle[1]]];
        for (const [from, to] of SEGMENTS[kind]) {
          path.moveTo(...edges[from]);
          if (square) path.lineTo(...middle);
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
    context.strokeStyle = palette.faint(palette.rim, 0.7);
    context.strokeText(text, x, y);
    context.fillStyle = palette.letters;
    context.fillText(text, x, y);
    context.globalAlpha = 1;
  }

  // A bar of so many millimetres, at most a third of the smallest side.
  function bar(context, box, width, height) {
    const length = [100, 50, 20, 10, 5, 2, 1].find((mm) => mm * box.per_mm <= Math.min(width, height) / 3);
    if (!length) return;
    const long = length * box.per_mm;
    for (const [thick, colour] of [[6, palette.faint(palette.rim, 0.7)], [3, palette.letters]]) {
      context.lineCap = "butt";
      context.lineWidth = thick;
      context.strokeStyle = colour;
      context.beginPath();
      context.moveTo(12, height - 14);
      context.lineTo(12 + long, height - 14);
      context.stroke();
    }
    write(context, `${length} mm`, Math.max(12 + long / 2, 28), height - 26);
  }

  // Two lines through a point of a plane, given as shares of its sides, open where they meet.
  function crosshair(context, box, right, down) {
    const x = box.left + right * box.width, y = box.top + down * box.height;
    const path = new Path2D();
    for (const [from, to] of [[box.left, x - 7], [x + 7, box.left + box.width]]) { path.moveTo(from, y); path.lineTo(to, y); }
    for (const [from, to] of [[box.top, y - 7], [y + 7, box.top + box.height]]) { path.moveTo(x, from); path.lineTo(x, to); }
    context.lineCap = "butt";
    for (const [thick, colour] of [[3, palette.faint(palette.rim, 0.4)], [1, palette.outline]]) {
      context.lineWidth = thick;
      context.strokeStyle = colour;
      context.stroke(path);
    }
  }

  // Slices that are cut across, at shares of a plane's width or height: triangles at the edge and, if wished, lines.
  function slicesAcross(context, box, width, height, shares, { upright, lines: drawn }) {
    const edge = upright ? Math.min(box.top + box.height, height) : Math.min(box.left + box.width, width);
    const lines = new Path2D(), triangles = new Path2D();
    // From the lower or right edge: how far inwards, and how far along it.
    const point = (inwards, along) => (upright ? [along, edge - inwards] : [edge - inwards, along]);
    for (const share of shares) {
      const along = upright ? box.left + share * box.width : box.top + share * box.height;
      triangles.moveTo(...point(8, along));
      triangles.lineTo(...point(1, along - 4));
      triangles.lineTo(...point(1, along + 4));
      triangles.closePath();
      if (!drawn) continue;
      lines.moveTo(...point(8, along));
      lines.lineTo(...point(upright ? box.height : box.width, along));
    }
    context.lineCap = "butt";
    context.setLineDash([7, 5]);
    for (const [thick, colour] of [[3, palette.faint(palette.rim, 0.5)], [1.4, palette.marks]]) {
      context.lineWidth = thick;
      context.strokeStyle = colour;
      context.stroke(lines);
    }
    context.setLineDash([]);
    context.lineWidth = 2;
    context.strokeStyle = palette.faint(palette.rim, 0.7);
    context.stroke(triangles);
    context.fillStyle = palette.marks;
    context.fill(triangles);
  }

  // Correcting clicks: the marks of points in their object's colour, on a white disc if positive, on a dark one if not.
  function clicks(context, made, structures, box) {
    for (const [, structure, , x, y, label] of made) {
      const cx = box.left + x * box.width, cy = box.top + y * box.height;
      const { colour } = structures[structure];
      context.beginPath();
      context.arc(cx, cy, 9, 0, 2 * Math.PI);
      context.fillStyle = label ? palette.outline : palette.ground;
      context.fill();
      context.lineWidth = 1.8;
      context.strokeStyle = label ? palette.ground : palette.outline;
      context.stroke();
      if (label) {
        context.fillStyle = colour;
        context.fill(star(cx, cy, 8));
      } else {
        context.lineWidth = 2.6;
        context.strokeStyle = colour;
        context.stroke(cross(cx, cy, 4));
      }
    }
  }

  // Boxes and points of prompts in their object's colour. structures: with the colour of each.
  function prompts(context, given, structures, box) {
    const place = ([x, y]) => [box.left + x * box.width, box.top + y * box.height];
    const twice = (thick, colour, path) => {
      for (const [line, ink] of [[thick + 2, palette.faint(palette.rim, 0.7)], [thick, colour]]) {
        context.lineWidth = line;
        context.strokeStyle = ink;
        context.stroke(path);
      }
    };
    context.lineCap = "round";
    context.lineJoin = "round";
    for (const prompt of given.filter((prompt) => prompt.box)) {
      const [left, top] = place(prompt.box), [right, bottom] = place(prompt.box.slice(2));
      const path = new Path2D();
      path.rect(left, top, right - left, bottom - top);
      twice(1.8, structures[prompt.structure].colour, path);
    }
    for (const wanted of [0, 1]) { // positive points last: they lie on top
      for (const prompt of given) {
        for (const [x, y, label] of prompt.points) {
          if (label !== wanted) continue;
          const [cx, cy] = place([x, y]);
          const colour = structures[prompt.structure].colour;
          if (label) {
            const path = star(cx, cy, 9);
            twice(2, palette.outline, path);
            context.fillStyle = colour;
            context.fill(path);
          } else {
            // Objects can share a negative point, and it can lie below another's star: earlier ones have longer arms.
            const arm = 5 + 3 * Math.min(structures.length - 1 - prompt.structure, 3);
            twice(2.4, colour, cross(cx, cy, arm));
          }
        }
      }
    }
  }

  // The patient's directions at the edges: right, left, anterior, posterior, superior, inferior.
  // inset: how far from the right and lower edge, where triangles may mark slices.
  function letters(context, { down, right }, width, height, inset) {
    write(context, right.letter, width - inset, height / 2);
    write(context, cuts.OPPOSITE[right.letter], 10, height / 2);
    write(context, down.letter, width / 2, height - inset);
    write(context, cuts.OPPOSITE[down.letter], width / 2, 10);
  }

  return { bar, clicks, crosshair, fill, grey, letters, outline, prompts, slicesAcross, write };
})();
