// Surfaces on a 2D canvas, by a small rasteriser: a page that opens from a file, in any browser and in print, then looks
// the same with and without a graphics card.
const solids = (() => {
  const [OUTSIDE, INSIDE, AGREES] = [palette.surplus, palette.lacking, palette.agrees].map(palette.channels);
  const SCALE_MM = 3;

  // Rotations are 3 x 3 matrices in rows, from the volume's x (right), y (up), z (towards the eye of the slices).
  const times = (a, b) => a.map((_, k) => [0, 1, 2].reduce((sum, i) => sum + a[3 * Math.floor(k / 3) + i] * b[3 * i + (k % 3)], 0));
  const aboutX = (angle) => [1, 0, 0, 0, Math.cos(angle), -Math.sin(angle), 0, Math.sin(angle), Math.cos(angle)];
  const aboutY = (angle) => [Math.cos(angle), 0, Math.sin(angle), 0, 1, 0, -Math.sin(angle), 0, Math.cos(angle)];

  const buffers = (columns, rows) => ({
    depth: new Float32Array(columns * rows).fill(-Infinity),
    // Lit red, green, blue and how squarely the surface faces the eye, all 0 to 255.
    values: new Uint8ClampedArray(4 * columns * rows),
  });

  // Colours of vertices by their distances, in steps of `step` millimetres.
  const distanceColour = (distances, step) => (vertex) => {
    const share = Math.max(-1, Math.min(1, (distances[vertex] * step) / SCALE_MM));
    const end = share > 0 ? OUTSIDE : INSIDE;
    return AGREES.map((value, k) => value + (end[k] - value) * Math.abs(share));
  };

  function rasterise(mesh, { columns, rows, unit, turn }, target, colourOf) {
    const { positions, normals, triangles } = mesh;
    const count = positions.length / 3;
    const seen = new Float32Array(7 * count); // x, y, z, red, green, blue, facing
    for (let v = 0; v < count; v++) {
      const [px, py, pz] = [positions[3 * v], positions[3 * v + 1], positions[3 * v + 2]];
      const [nx, ny, nz] = [normals[3 * v], normals[3 * v + 1], normals[3 * v + 2]];
      const facing = turn[6] * nx + turn[7] * ny + turn[8] * nz;
      // A light from the upper left before the object, and some from everywhere.
      const lit = -0.35 * (turn[0] * nx + turn[1] * ny + turn[2] * nz)
        + 0.5 * (turn[3] * nx + turn[4] * ny + turn[5] * nz) + 0.79 * facing;
      const light = 0.28 + 0.72 * Math.max(0, lit);
      const colour = colourOf(v);
      seen.set([
        columns / 2 + unit * (turn[0] * px + turn[1] * py + turn[2] * pz),
        rows / 2 - unit * (turn[3] * px + turn[4] * py + turn[5] * pz),
        turn[6] * px + turn[7] * py + turn[8] * pz,
        light * colour[0], light * colour[1], light * colour[2], 255 * Math.max(0, facing),
      ], 7 * v);
    }
    for (let k = 0; k < triangles.length; k += 3) {
      const a = 7 * triangles[k], b = 7 * triangles[k + 1], c = 7 * triangles[k + 2];
      const ax = seen[a], ay = seen[a + 1], bx = seen[b], by = seen[b + 1], cx = seen[c], cy = seen[c + 1];
      const area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay);
      if (area >= 0) continue; // y points down here: what faces the eye runs the other way round
      const left = Math.max(0, Math.ceil(Math.min(ax, bx, cx) - 0.5));
      const right = Math.min(columns - 1, Math.floor(Math.max(ax, bx, cx) - 0.5));
      const top = Math.max(0, Math.ceil(Math.min(ay, by, cy) - 0.5));
      const bottom = Math.min(rows - 1, Math.floor(Math.max(ay, by, cy) - 0.5));
      for (let y = top; y <= bottom; y++) {
        for (let x = left; x <= right; x++) {
          const px = x + 0.5, py = y + 0.5;
          const wa = ((bx - px) * (cy - py) - (cx - px) * (by - py)) / area;
          const wb = ((cx - px) * (ay - py) - (ax - px) * (cy - py)) / area;
          const wc = 1 - wa - wb;
          if (wa < 0 || wb < 0 || wc < 0) continue;
          const z = wa * seen[a + 2] + wb * seen[b + 2] + wc * seen[c + 2];
          const pixel = y * columns + x;
          if (z <= target.depth[pixel]) continue;
          target.depth[pixel] = z;
          for (let channel = 0; channel < 4; channel++) {
            target.values[4 * pixel + channel] =
              wa * seen[a + 3 + channel] + wb * seen[b + 3 + channel] + wc * seen[c + 3 + channel];
          }
        }
      }
    }
  }

  // The opaque surfaces, with the translucent ones over them where these are nearer: faint where they face the eye,
  // dense at their rim.
  function composed(context, opaque, clear, columns, rows) {
    const image = context.createImageData(columns, rows);
    const out = image.data;
    for (let pixel = 0; pixel < columns * rows; pixel++) {
      const k = 4 * pixel;
      const solidHere = opaque.depth[pixel] > -Infinity;
      if (solidHere) {
        out[k] = opaque.values[k]; out[k + 1] = opaque.values[k + 1]; out[k + 2] = opaque.values[k + 2]; out[k + 3] = 255;
      }
      if (clear.depth[pixel] > opaque.depth[pixel]) {
        const share = 0.16 + 0.5 * (1 - clear.values[k + 3] / 255) ** 2;
        const under = solidHere ? 1 : 0;
        const alpha = share + under * (1 - share);
        for (let channel = 0; channel < 3; channel++) {
          const over = 90 + clear.values[k + channel] * 0.65;
          out[k + channel] = (share * over + under * (1 - share) * out[k + channel]) / alpha;
        }
        out[k + 3] = 255 * alpha;
      }
    }
    return image;
  }

  return { INSIDE, OUTSIDE, SCALE_MM, aboutX, aboutY, buffers, composed, distanceColour, rasterise, times };
})();
