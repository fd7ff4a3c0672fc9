// The planes of a volume: its slices as the model saw them, and the two planes across, cut through the slices that the
// page holds. Axes have the numbers 0 (slice), 1 (y) and 2 (x); so has a plane, by the axis that it is cut at.
const cuts = (() => {
  // Directions in which a plane's picture grows, down and to the right, as the eye expects it (volumes/grid.py).
  const DIRECTIONS = { Sagittal: "IP", Coronal: "IL", Axial: "PL" };
  const OPPOSITE = { R: "L", L: "R", A: "P", P: "A", S: "I", I: "S" };
  const ORDINALS = ["", "", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"];

  // The three planes, by the axis that they are cut at. Each has two sides, down and right: the axis of the volume, the
  // letter of the direction in which the picture grows, whether the axis grows the other way, and how many slices or
  // pixels and millimetres it has.
  function planesOf({ axes, size, extent_slices, extent_mm }) {
    const counts = [extent_slices, ...size];
    const side = (letter) => {
      const backwards = !axes.includes(letter);
      const axis = axes.indexOf(backwards ? OPPOSITE[letter] : letter);
      return { axis, letter, backwards, count: counts[axis], mm: extent_mm[axis] };
    };
    const planes = [];
    for (const [name, letters] of Object.entries(DIRECTIONS)) {
      const [down, right] = [...letters].map(side);
      const through = 3 - down.axis - right.axis;
      planes[through] = { name, down, right, through };
    }
    return planes;
  }

  // For every slice of the shown range the place of the one that stands for it: the nearest that the page holds, the
  // first of two.
  function standing({ slices, first, extent_slices }) {
    const away = (place, k) => Math.abs(slices[place] - first - k);
    let place = 0;
    return Array.from({ length: extent_slices }, (_, k) => {
      while (place + 1 < slices.length && away(place + 1, k) < away(place, k)) place++;
      return place;
    });
  }

  // Which slices of the shown range the page holds, in words.
  function storedInWords({ slices, extent_slices }) {
    if (slices.length === extent_slices) return "every slice";
    const gaps = slices.slice(1).map((slice, k) => slice - slices[k]);
    const usual = Math.round((extent_slices - 1) / Math.max(1, slices.length - 1));
    if (!gaps.length || usual < 2) return `${slices.length} of ${extent_slices} slices`;
    const about = gaps.every((gap) => gap === usual) ? "" : "about ";
    return `${about}every ${ORDINALS[usual] ?? `${usual}th`} slice`;
  }

  // The values of a plane across, by slice that the page holds and then along the plane's other axis. values: by slice,
  // y and x; index: where the plane is cut.
  function cutValues(values, { slices, size: [rows, columns] }, { through }, index) {
    const long = through === 1 ? columns : rows;
    const cut = new Uint8Array(slices.length * long);
    for (let place = 0; place < slices.length; place++) {
      const start = place * rows * columns + index * (through === 1 ? columns : 1);
      for (let k = 0; k < long; k++) cut[place * long + k] = values[start + k * (through === 1 ? 1 : columns)];
    }
    return cut;
  }

  // The same of a mask, 0 or 1. ends: where its runs end.
  function cutMask(ends, { slices, size: [rows, columns] }, { through }, index) {
    const cut = new Uint8Array(slices.length * (through === 1 ? columns : rows));
    for (let run = 1; run < ends.length; run += 2) {
      const start = ends[run - 1], stop = ends[run];
      if (through === 2) { // a pixel of each line of pixels that the run passes
        const first = start + ((index - (start % columns) + columns) % columns);
        for (let pixel = first; pixel < stop; pixel += columns) cut[(pixel - index) / columns] = 1;
        continue;
      }
      for (let line = Math.floor(start / columns); line * columns < stop; line++) {
        if (line % rows !== index) continue;
        const from = Math.max(start - line * columns, 0), to = Math.min(stop - line * columns, columns);
        const place = Math.floor(line / rows);
        cut.fill(1, place * columns + from, place * columns + to);
      }
    }
    return cut;
  }

  // What was cut as the plane shows it, in reading order: each slice that the page holds is as thick as the gap that it
  // stands for.
  function arranged(cut, volume, { down, right, through }) {
    const long = volume.size[2 - through];
    const stands = standing(volume);
    const steps = ({ axis, backwards, count }) => Array.from({ length: count }, (_, k) => {
      const index = backwards ? count - 1 - k : k;
      return axis === 0 ? stands[index] * long : index;
    });
    const rows = steps(down), columns = steps(right);
    const shown = new Uint8Array(rows.length * columns.length);
    for (let y = 0, pixel = 0; y < rows.length; y++) {
      for (let x = 0; x < columns.length; x++) shown[pixel++] = cut[rows[y] + columns[x]];
    }
    return shown;
  }

  return { OPPOSITE, arranged, cutMask, cutValues, planesOf, standing, storedInWords };
})();
