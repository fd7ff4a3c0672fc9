// Undoes what report/packing.py packs: frames, masks and surfaces of a volume.
const unpacking = (() => {
  const bytesOf = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

  async function inflated(text) {
    const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // Run lengths, lowest bytes of all first; returns where each run ends. Run k holds zeros for even k, ones for odd.
  async function unpackedMask(text) {
    if (text === null) return null;
    const bytes = await inflated(text);
    const count = bytes.length / 4;
    const ends = new Uint32Array(count);
    let end = 0;
    for (let k = 0; k < count; k++) {
      end += bytes[k] + 256 * bytes[count + k] + 65536 * bytes[2 * count + k] + 16777216 * bytes[3 * count + k];
      ends[k] = end;
    }
    return ends;
  }

  // The pixels of one slice of a mask, 0 or 1 in reading order.
  function maskOfSlice(ends, place, size) {
    const pixels = new Uint8Array(size);
    const first = place * size, stop = first + size;
    let low = 0, high = ends.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (ends[middle] > first) high = middle; else low = middle + 1;
    }
    for (let k = low, from = first; k < ends.length && from < stop; from = ends[k], k++) {
      if (k % 2) pixels.fill(1, from - first, Math.min(ends[k], stop) - first);
    }
    return pixels;
  }

  // Where two masks differ: a border of both is none.
  function differing(one, other) {
    const ends = [], stop = one[one.length - 1];
    for (let i = 0, j = 0; one[i] < stop || other[j] < stop;) {
      const [a, b] = [one[i], other[j]];
      if (a !== b) ends.push(Math.min(a, b));
      if (a <= b) i++;
      if (b <= a) j++;
    }
    return Uint32Array.from([...ends, stop]);
  }

  const all = (list, unpack) => Promise.all(list.map(unpack));

  // The masks of every round of corrections. Stored are those of the last one, and what changes up to each next one.
  async function unpackedRounds(view) {
    const rounds = [await all(view.masks, unpackedMask)];
    for (const { changed } of [...(view.rounds ?? [])].reverse()) {
      const changes = await all(changed, unpackedMask);
      rounds.unshift(rounds[0].map((mask, k) => mask && differing(mask, changes[k])));
    }
    return rounds;
  }

  // A surface, coded in steps of `step` millimetres, with positions in millimetres from the middle of the shown region: x to the right and y up as on the
  // slices, z towards the eye; slices that grow away from the eye count backwards, so that nothing is mirrored.
  async function unpackedSurface(coded, volume, step) {
    if (coded === null) return null;
    const bytes = await inflated(coded.data);
    const n = coded.vertices, m = coded.triangles;
    let offset = 0;
    const numbers = (count) => {
      const values = new Uint16Array(count);
      for (let k = 0; k < count; k++) values[k] = bytes[offset + k] + 256 * bytes[offset + count + k];
      offset += 2 * count;
      return values;
    };
    const summed = (values) => {
      for (let k = 1; k < values.length; k++) values[k] += values[k - 1]; // wraps at 65536, as it was coded
      return values;
    };
    const [along, down, right] = [summed(numbers(n)), summed(numbers(n)), summed(numbers(n))];
    const [first, second, third] = [summed(numbers(m)), numbers(m), numbers(m)];
    const distances = coded.distances ? new Int8Array(bytes.buffer, offset, n) : null;
    const [depth, height, width] = volume.extent_mm;
    const positions = new Float32Array(3 * n);
    for (let k = 0; k < n; k++) {
      positions[3 * k] = right[k] * step - width / 2;
      positions[3 * k + 1] = height / 2 - down[k] * step;
      positions[3 * k + 2] = (along[k] * step - depth / 2) * (volume.mirrored ? -1 : 1);
    }
    const triangles = new Uint16Array(3 * m);
    for (let k = 0; k < m; k++) {
      triangles[3 * k] = first[k];
      triangles[3 * k + 1] = first[k] + second[k];
      triangles[3 * k + 2] = first[k] + third[k];
    }
    return { positions, triangles, normals: normalsOf(positions, triangles), distances };
  }

  // Unit normals of the vertices, outwards whichever way round the triangles are; turns these to match.
  function normalsOf(positions, triangles) {
    const normals = new Float32Array(positions.length);
    let volume = 0;
    for (let k = 0; k < triangles.length; k += 3) {
      const [a, b, c] = [3 * triangles[k], 3 * triangles[k + 1], 3 * triangles[k + 2]];
      const ux = positions[b] - positions[a], uy = positions[b + 1] - positions[a + 1], uz = positions[b + 2] - positions[a + 2];
      const vx = positions[c] - positions[a], vy = positions[c + 1] - positions[a + 1], vz = positions[c + 2] - positions[a + 2];
      const nx = uy * vz - uz * vy, ny = uz * vx - ux * vz, nz = ux * vy - uy * vx;
      volume += positions[a] * nx + positions[a + 1] * ny + positions[a + 2] * nz;
      for (const vertex of [a, b, c]) {
        normals[vertex] += nx; normals[vertex + 1] += ny; normals[vertex + 2] += nz;
      }
    }
    const sign = volume < 0 ? -1 : 1;
    for (let k = 0; k < normals.length; k += 3) {
      const length = sign * Math.hypot(normals[k], normals[k + 1], normals[k + 2]) || 1;
      normals[k] /= length; normals[k + 1] /= length; normals[k + 2] /= length;
    }
    if (sign < 0) {
      for (let k = 0; k < triangles.length; k += 3) {
        [triangles[k + 1], triangles[k + 2]] = [triangles[k + 2], triangles[k + 1]];
      }
    }
    return normals;
  }

  async function pictureOf(text) {
    const image = new Image();
    image.src = "data:image/webp;base64," + text;
    await image.decode();
    return image;
  }

  // The values of all frames, 0 to 255 in reading order: those of the picture in which they lie side by side.
  async function unpackedFrames(picture, { size: [rows, columns], slices, columns: beside }) {
    const values = new Uint8Array(slices.length * rows * columns);
    const bitmap = await createImageBitmap(picture); // unpacked once, and not for every frame
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width: columns, height: rows });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    for (let place = 0, pixel = 0; place < slices.length; place++) {
      context.drawImage(bitmap, -(place % beside) * columns, -Math.floor(place / beside) * rows);
      const { data } = context.getImageData(0, 0, columns, rows);
      for (let k = 0; k < data.length; k += 4) values[pixel++] = data[k];
    }
    bitmap.close();
    return values;
  }

  return { all, differing, maskOfSlice, pictureOf, unpackedFrames, unpackedMask, unpackedRounds, unpackedSurface };
})();
