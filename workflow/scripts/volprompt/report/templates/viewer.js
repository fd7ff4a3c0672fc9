// The viewer of the report: slices with prompts, reference and prediction, and their surfaces in 3D.
//
// Reads the JSON in #views-data (made by report/views.py) and builds itself inside #viewer. Names come from outside and enter
// the page as text only. Surfaces are drawn by a small rasteriser of its own on a 2D canvas: a page that opens from a
// file, in any browser and in print, then looks the same with and without a graphics card.
(() => {
  "use strict";
  const mount = document.getElementById("viewer");
  const source = document.getElementById("views-data");
  if (!mount || !source) return;
  const data = JSON.parse(source.textContent);

  // ---------------------------------------------------------------- building blocks of the page

  function make(tag, properties = {}, children = []) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name === "text") element.textContent = value;
      else if (name === "class") element.className = value;
      else if (name.startsWith("on")) element.addEventListener(name.slice(2), value, { passive: false });
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  const say = (text) => mount.replaceChildren(make("p", { class: "viewer-note", text }));
  if (!data) return say("No volume has masks that could be shown.");
  if (typeof DecompressionStream === "undefined") {
    return say("This browser is too old to unpack the volumes; a current one shows them here.");
  }

  const ROLES = { worst: "Worst", median: "Median", best: "Best", example: "Example", volume: "This volume" };
  const OPPOSITE = { R: "L", L: "R", A: "P", P: "A", S: "I", I: "S" };
  const OUTSIDE = [213, 94, 0], INSIDE = [0, 114, 178], AGREES = [240, 240, 240], SCALE_MM = 3;
  const names = data.structures.map((structure) => structure.name);
  const colours = data.structures.map(({ colour }) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16)));

  const state = {
    configuration: 0,
    role: "worst",
    place: 0,
    round: Infinity, // of corrections; beyond the last one: the last one, however many there are
    shown: { reference: true, prediction: true, prompts: true, difference: false, distance: false },
    flat: { zoom: 1, x: 0, y: 0 }, // of the slice; the middle's offset from that of the picture, in its widths and heights
    light: { brightness: 100, contrast: 100 }, // percent
    structures: names.map(() => true),
    turn: null,
    zoom: 1,
    moving: false,
    loaded: null,
    beside: null, // another configuration of the same volume, in place of the surfaces: its number, and what is loaded
  };

  // ---------------------------------------------------------------- unpacking

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

  // The masks of every round of corrections. Stored are those of the last one, and what changes up to each next one.
  async function unpackedRounds(view) {
    const rounds = [await all(view.masks, unpackedMask)];
    for (const { changed } of [...(view.rounds ?? [])].reverse()) {
      const changes = await all(changed, unpackedMask);
      rounds.unshift(rounds[0].map((mask, k) => mask && differing(mask, changes[k])));
    }
    return rounds;
  }

  // A surface with positions in millimetres from the middle of the shown region: x to the right and y up as on the
  // slices, z towards the eye; slices that grow away from the eye count backwards, so that nothing is mirrored.
  async function unpackedSurface(coded, volume) {
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
      positions[3 * k] = right[k] * data.step - width / 2;
      positions[3 * k + 1] = height / 2 - down[k] * data.step;
      positions[3 * k + 2] = (along[k] * data.step - depth / 2) * (volume.mirrored ? -1 : 1);
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

  const all = (list, unpack) => Promise.all(list.map(unpack));
  const unpacked = new Map();

  function once(key, unpack) {
    if (!unpacked.has(key)) unpacked.set(key, unpack());
    return unpacked.get(key);
  }

  async function load(view) {
    const volume = data.volumes[view.volume];
    const surface = (coded) => unpackedSurface(coded, volume);
    const [picture, reference, rounds, referenceSurfaces, surfaces] = await Promise.all([
      once(volume, () => pictureOf(volume.frames)),
      once(volume.reference, () => all(volume.reference, unpackedMask)),
      once(view.masks, () => unpackedRounds(view)),
      once(volume.surfaces, () => all(volume.surfaces, surface)),
      once(view.surfaces, () => all(view.surfaces, surface)),
    ]);
    return { view, volume, picture, reference, rounds, referenceSurfaces, surfaces };
  }

  // ---------------------------------------------------------------- the page

  const select = make("select", { class: "viewer-select", onchange: () => choose(Number(select.value), state.role) });
  const groups = new Map();
  data.configurations.forEach((configuration, index) => {
    if (!groups.has(configuration.experiment)) {
      groups.set(configuration.experiment, make("optgroup", { label: "Experiment " + configuration.experiment }));
    }
    const text = `${configuration.model}, ${configuration.scheme}`;
    groups.get(configuration.experiment).append(make("option", { value: index, text }));
  });
  select.append(...groups.values());
  const roles = make("div", { class: "viewer-buttons", role: "group", "aria-label": "Volume of this configuration" });
  const roundText = make("label", { for: "viewer-round" });
  const roundDice = make("span", { class: "viewer-round-dice" });
  const roundRange = make("input", {
    class: "viewer-round", id: "viewer-round", type: "range", min: 0, step: 1, oninput: () => goRound(Number(roundRange.value)),
  });
  const rounds = make("div", { class: "viewer-label", hidden: "" }, [
    make("div", { class: "viewer-round-line" }, [roundText, roundDice]), roundRange,
  ]);
  const roundPrinted = make("span", { class: "viewer-printed" });
  const title = make("p", { class: "viewer-title", "aria-live": "polite" });

  const help = make("p", { class: "viewer-note", id: "viewer-help" });
  help.textContent =
    "Slices: wheel or swipe, arrow keys, Page Up and Down, Home, End. On a picture that has the focus: R reference, " +
    "P prediction, C prompts, F differences, 1 to 9 structures, J next prompted slice; + and -, or the wheel with Ctrl, " +
    "zoom, and then dragging or Shift and arrow keys move the slice, 0 starts again. 3D: drag or arrow keys turn, wheel or " +
    "+ and - zoom, 0 starts again.";
  const sliceCanvas = () => make("canvas", {
    class: "viewer-canvas", tabindex: 0, role: "img", "aria-describedby": "viewer-help",
    onwheel: wheelSlice, onkeydown: keySlice, onpointerdown: swipeStart, onpointermove: swipe,
    onpointerup: swipeEnd, onpointercancel: swipeEnd,
  });
  const flat = sliceCanvas(), flatBeside = sliceCanvas();
  const besideText = make("p", { class: "viewer-caption" });
  const besideSelect = make("select", {
    class: "viewer-select viewer-beside",
    onchange: () => compare(besideSelect.value === "" ? null : Number(besideSelect.value)),
  });
  const besideLabel = make("label", { class: "viewer-label" }, [make("span", { text: "Beside it" }), besideSelect]);
  const strip = make("canvas", {
    class: "viewer-strip", "aria-hidden": "true", onpointerdown: pickSlice, onpointermove: (e) => e.buttons && pickSlice(e),
  });
  const range = make("input", {
    class: "viewer-range", type: "range", min: 0, step: 1, "aria-label": "Slice", oninput: () => go(Number(range.value)),
  });
  const sliceText = make("p", { class: "viewer-caption", "aria-live": "polite" });
  const jumpButton = make("button", { type: "button", class: "viewer-button", text: "Prompted slice", onclick: jump });
  const solid = make("canvas", {
    class: "viewer-canvas viewer-solid", tabindex: 0, role: "img", "aria-describedby": "viewer-help",
    onwheel: wheelSolid, onkeydown: keySolid, onpointerdown: dragStart, onpointermove: drag,
    onpointerup: dragEnd, onpointercancel: dragEnd,
  });
  const solidText = make("p", { class: "viewer-caption" });
  const button = (text, label, onclick) =>
    make("button", { type: "button", class: "viewer-button", text, "aria-label": label, onclick });
  const check = (text, key) => {
    const box = make("input", { type: "checkbox", onchange: () => toggle(key, box.checked) });
    box.checked = state.shown[key];
    return { box, label: make("label", { class: "viewer-check" }, [box, text]) };
  };
  const checks = {
    reference: check("Reference", "reference"),
    prediction: check("Prediction", "prediction"),
    prompts: check("Prompts", "prompts"),
    difference: check("Differences", "difference"),
    distance: check("Colour by distance to the reference", "distance"),
  };
  const scale = make("span", { class: "viewer-scale" }, [
    make("span", { text: `${SCALE_MM} mm inside` }),
    make("span", { class: "viewer-gradient" }),
    make("span", { text: `${SCALE_MM} mm outside` }),
  ]);

  const combinedCells = [make("td"), make("td")];
  const structureRows = names.map((name, index) => {
    const box = make("input", { type: "checkbox", onchange: () => toggleStructure(index, box.checked) });
    box.checked = true;
    const swatch = make("span", { class: "viewer-swatch" });
    swatch.style.background = data.structures[index].colour;
    const cells = [make("td"), make("td")];
    const head = make("th", { scope: "row" }, [make("label", { class: "viewer-check" }, [box, swatch, name])]);
    return { box, cells, row: make("tr", {}, [head, ...cells]) };
  });
  const table = make("table", { class: "viewer-table" }, [
    make("thead", {}, [
      make("tr", {}, ["Dice", "Volume", "This slice"].map((text) => make("th", { scope: "col", text }))),
    ]),
    make("tbody", {}, [
      make("tr", {}, [make("th", { scope: "row", text: "Combined" }), ...combinedCells]),
      ...structureRows.map(({ row }) => row),
    ]),
  ]);

  const anyRounds = data.configurations.some(({ views }) => views.some((view) => view.rounds));
  const key = make("ul", { class: "viewer-key", "aria-label": "Marks" }, [
    ["viewer-mark-prediction", "filled: prediction"],
    ["viewer-mark-reference", "white line: reference"],
    ["viewer-mark-surplus", "differences: predicted, not in the reference"],
    ["viewer-mark-lacking", "differences: in the reference, not predicted"],
    ["viewer-mark-positive", "positive point"],
    ["viewer-mark-negative", "negative point, in its object's colour"],
    ["viewer-mark-corrected", "correcting click, positive"],
    ["viewer-mark-refused", "correcting click, negative"],
    ["viewer-mark-box", "box"],
    ["viewer-mark-dice", "Dice of each slice"],
    ["viewer-mark-prompted", "prompted slice"],
    ["viewer-mark-astray", "a structure is predicted where the reference does not show it"],
  ].filter(([mark]) => anyRounds || !["viewer-mark-corrected", "viewer-mark-refused"].includes(mark))
    .map(([mark, text]) => make("li", {}, [make("span", { class: "viewer-mark " + mark }), text])));
  const besidePanel = make("div", { class: "viewer-panel", hidden: "" }, [
    make("div", { class: "viewer-stage" }, [flatBeside]), besideText,
  ]);
  const solidPanel = make("div", { class: "viewer-panel" }, [
    make("div", { class: "viewer-stage" }, [solid]), solidText,
    make("div", { class: "viewer-buttons viewer-tools" }, [
      button("−", "Smaller", () => zoomBy(1 / 1.25)), button("+", "Larger", () => zoomBy(1.25)),
      button("Start again", "Turn back to the first view", startTurn), checks.distance.label, scale,
    ]),
  ]);
  const root = make("div", { class: "viewer-root" }, [
    make("div", { class: "viewer-controls" }, [
      make("label", { class: "viewer-label" }, [make("span", { text: "Configuration" }), select]), roles, besideLabel, rounds,
    ]),
    title,
    make("div", { class: "viewer-panels" }, [
      make("div", { class: "viewer-panel" }, [
        make("div", { class: "viewer-stage" }, [flat]), strip, range, sliceText,
        make("div", { class: "viewer-buttons viewer-tools" }, [
          button("◀", "Slice before", () => go(state.place - 1)), button("▶", "Next slice", () => go(state.place + 1)),
          jumpButton, button("−", "Smaller slice", () => zoomFlat(1 / 1.25)), button("+", "Larger slice", () => zoomFlat(1.25)),
          button("Whole slice", "Show the whole slice", wholeSlice),
        ]),
        make("div", { class: "viewer-buttons viewer-tools" }, [light("Brightness", "brightness"), light("Contrast", "contrast")]),
      ]),
      besidePanel, solidPanel,
    ]),
    make("div", { class: "viewer-below" }, [
      make("fieldset", { class: "viewer-switches" }, [
        make("legend", { text: "Show" }), checks.reference.label, checks.prediction.label, checks.prompts.label,
        checks.difference.label,
      ]),
      table, key,
    ]),
    help,
  ]);
  mount.replaceChildren(root);

  // ---------------------------------------------------------------- choosing

  let asked = 0;

  async function choose(index, role) {
    const configuration = data.configurations[index];
    const known = Object.keys(ROLES).filter((name) => name in configuration.roles);
    state.configuration = index;
    state.role = known.includes(role) ? role : known[0];
    const view = configuration.views[configuration.roles[state.role]];
    const now = ++asked;
    root.dataset.ready = "false";
    let loaded;
    try {
      loaded = await load(view);
    } catch (error) {
      return say(`This volume cannot be unpacked here (${error.message}).`);
    }
    if (now !== asked) return;
    // The same volume under another configuration keeps its slice, so that the two can be compared.
    const before = state.loaded;
    const same = before && before.volume === loaded.volume;
    state.loaded = loaded;
    if (!same) state.place = view.start;
    range.max = loaded.volume.slices.length - 1;
    select.value = String(index);
    showRoles(configuration);
    const spread = configuration.ranked > 1
      ? `, ${state.role} of ${configuration.ranked} scored volumes by combined Dice` : "";
    const { experiment, model, scheme } = configuration;
    const printed = make("span", { class: "viewer-printed", text: `; experiment ${experiment}, ${model}, ${scheme}` });
    title.replaceChildren(make("strong", { text: loaded.volume.name }), spread, printed, roundPrinted);
    const has = loaded.volume.reference.some((mask) => mask !== null);
    checks.reference.box.disabled = checks.distance.box.disabled = checks.difference.box.disabled = !has;
    if (!same) Object.assign(state.flat, { zoom: 1, x: 0, y: 0 });
    rounds.hidden = !lastRound();
    roundRange.max = String(lastRound());
    root.dataset.configuration = String(index);
    root.dataset.role = state.role;
    root.dataset.volume = loaded.volume.name;
    if (!state.turn) startTurn();
    offerBeside();
    showRound();
    root.dataset.ready = "true";
  }

  function showRoles(configuration) {
    const focused = roles.contains(document.activeElement) ? document.activeElement.dataset.role : null;
    roles.replaceChildren(...Object.keys(ROLES).filter((role) => role in configuration.roles).map((role) => {
      const value = configuration.views[configuration.roles[role]].dice.combined;
      return make("button", {
        type: "button", class: "viewer-button", "data-role": role, "aria-pressed": String(role === state.role),
        text: ROLES[role] + (value === undefined ? "" : " " + digits(value)),
        onclick: () => choose(state.configuration, role),
      });
    }));
    if (focused) [...roles.children].find((made) => made.dataset.role === focused)?.focus();
  }

  const digits = (value) => (value === undefined || value === null ? "–" : value.toFixed(3));

  // ---------------------------------------------------------------- a second configuration beside

  const viewBeside = (index) => data.configurations[index].views.find(({ volume }) => data.volumes[volume] === state.loaded.volume);

  // What can stand beside: the configurations that show this volume too. One that stands there stays if it can.
  function offerBeside() {
    const before = state.beside?.index ?? null;
    const can = data.configurations.map((_, index) => index).filter((index) => index !== state.configuration && viewBeside(index));
    besideSelect.replaceChildren(make("option", { value: "", text: "Surfaces in 3D" }), ...can.map((index) => {
      const { model, scheme } = data.configurations[index];
      return make("option", { value: index, text: `${model}, ${scheme}` });
    }));
    besideLabel.hidden = !can.length;
    state.beside = null;
    compare(can.includes(before) ? before : null);
  }

  let compared = 0;

  async function compare(index) {
    const now = ++compared;
    const loaded = index === null ? null : await load(viewBeside(index)).catch(() => null);
    if (now !== compared) return;
    state.beside = loaded && { index, loaded };
    besideSelect.value = loaded ? String(index) : "";
    solidPanel.hidden = Boolean(loaded);
    besidePanel.hidden = !loaded;
    root.dataset.beside = loaded ? String(index) : "";
    showBeside();
    draw();
  }

  function showBeside() {
    if (!state.beside) return;
    const { loaded, index } = state.beside, { model, scheme } = data.configurations[index];
    const { dice, slice_dice } = ofRound(loaded);
    const round = lastRound(loaded) ? `, round ${shownRound(loaded)} of ${lastRound(loaded)}` : "";
    const text = `${model}, ${scheme}${round}: Dice ${digits(dice.combined)}, this slice ${digits(slice_dice[state.place]?.[0])}`;
    besideText.textContent = text;
    flatBeside.setAttribute("aria-label", `${loaded.volume.name}, slice ${loaded.volume.slices[state.place]}, ${text}`);
  }

  // ---------------------------------------------------------------- rounds of corrections

  const lastRound = (loaded = state.loaded) => loaded.rounds.length - 1;
  const shownRound = (loaded = state.loaded) => Math.min(state.round, lastRound(loaded));
  // Dice, Dice by slice and structures by slice of the shown round; those of the last one are the view's own.
  const ofRound = (loaded = state.loaded) => loaded.view.rounds?.[shownRound(loaded)] ?? loaded.view;
  const shownClicks = (loaded = state.loaded) => (loaded.view.clicks ?? []).filter(([round]) => round <= shownRound(loaded));

  function goRound(round) {
    if (!state.loaded) return;
    state.round = round < lastRound() ? round : Infinity;
    showRound();
  }

  function showRound() {
    const { dice } = ofRound(), { slices } = state.loaded.volume;
    const text = `Round ${shownRound()} of ${lastRound()}`;
    const value = dice.combined === undefined ? "" : `Dice ${digits(dice.combined)}`;
    roundText.textContent = text;
    roundDice.textContent = value;
    roundPrinted.textContent = lastRound() ? `; ${text}` : "";
    roundRange.value = String(shownRound());
    roundRange.setAttribute("aria-valuetext", [text, value].filter(Boolean).join(", "));
    root.dataset.round = String(shownRound());
    structureRows.forEach(({ cells }, k) => { cells[0].textContent = digits(dice[names[k]]); });
    combinedCells[0].textContent = digits(dice.combined);
    const marked = promptedPlaces();
    jumpButton.hidden = !marked.length || marked.length > slices.length / 2;
    go(state.place);
  }

  // Whether a structure is predicted on a slice on which the reference does not show it.
  function isAstray(place, structure) {
    const { volume } = state.loaded, { slice_dice, present } = ofRound();
    const has = (bits) => Math.floor(bits / 2 ** structure) % 2 === 1;
    const scores = slice_dice[place] ?? [];
    // A structure that no reference shows anywhere has no Dice.
    return (scores[structure + 1] ?? null) !== null && has(present[place]) && !has(volume.present[place]);
  }

  // Places of the slices with a prompt or a click.
  function promptedPlaces() {
    const { view, volume } = state.loaded;
    const prompted = new Set([...view.prompts.map((prompt) => prompt.slice), ...shownClicks().map(([, , slice]) => slice)]);
    return volume.slices.flatMap((slice, place) => (prompted.has(slice) ? [place] : []));
  }

  // ---------------------------------------------------------------- moving through slices

  function go(place) {
    if (!state.loaded) return;
    const { view, volume } = state.loaded;
    state.place = Math.min(Math.max(place, 0), volume.slices.length - 1);
    const slice = volume.slices[state.place];
    const scores = ofRound().slice_dice[state.place] || [];
    const prompted = view.prompts.some((prompt) => prompt.slice === slice);
    const corrected = [...new Set(shownClicks().filter(([, , clicked]) => clicked === slice).map(([round]) => round))];
    range.value = String(state.place);
    root.dataset.slice = String(slice);
    combinedCells[1].textContent = digits(scores[0]);
    structureRows.forEach(({ cells }, k) => { cells[1].textContent = digits(scores[k + 1]); });
    const astray = names.filter((_, k) => isAstray(state.place, k));
    const few = volume.slices.length < volume.extent_slices ? `, ${volume.slices.length} of them shown` : "";
    const notes = [prompted ? "prompted" : "", corrected.length ? `corrected in round ${corrected.join(", ")}` : "",
      astray.length ? `${astray.join(", ")} predicted, not in the reference` : ""].filter(Boolean);
    const text = `Slice ${slice} (0 to ${volume.depth - 1})${few}` + (notes.length ? ": " + notes.join(", ") : "");
    sliceText.textContent = text;
    range.setAttribute("aria-valuetext", `${text}${scores.length ? ", Dice " + digits(scores[0]) : ""}`);
    showBeside();
    flat.setAttribute("aria-label", `${volume.name}${lastRound() ? ", " + roundText.textContent : ""}, ${text}`);
    draw();
  }

  function jump() {
    const marked = promptedPlaces();
    if (marked.length) go(marked.find((place) => place > state.place) ?? marked[0]);
  }

  let rolled = 0;

  function wheelSlice(event) {
    if (!state.loaded) return;
    if (event.ctrlKey) { // and a pinch on a touch pad
      event.preventDefault();
      zoomFlat(Math.exp(-event.deltaY * (event.deltaMode === 0 ? 0.01 : 0.3)), event);
      return;
    }
    const last = state.loaded.volume.slices.length - 1;
    const ahead = event.deltaY > 0;
    if (state.place === (ahead ? last : 0)) { rolled = 0; return; } // at the end the page itself scrolls on
    event.preventDefault();
    rolled += event.deltaMode === 0 ? event.deltaY : event.deltaY * 40;
    if (Math.abs(rolled) < 30) return;
    rolled = 0;
    go(state.place + (ahead ? 1 : -1));
  }

  function keySlice(event) {
    if (!state.loaded || event.ctrlKey || event.altKey || event.metaKey) return;
    const moved = { ArrowUp: [0, 1], ArrowDown: [0, -1], ArrowLeft: [1, 0], ArrowRight: [-1, 0] }[event.key];
    const zoomed = { "+": 1.25, "=": 1.25, "-": 0.8 }[event.key];
    if (event.shiftKey && moved) {
      event.preventDefault();
      moveFlat(moved[0] * 0.1, moved[1] * 0.1);
      return;
    }
    if (zoomed || event.key === "0") {
      event.preventDefault();
      if (zoomed) zoomFlat(zoomed); else wholeSlice();
      return;
    }
    const last = state.loaded.volume.slices.length - 1;
    const to = {
      ArrowUp: state.place - 1, ArrowLeft: state.place - 1, ArrowDown: state.place + 1, ArrowRight: state.place + 1,
      PageUp: state.place - 5, PageDown: state.place + 5, Home: 0, End: last,
    }[event.key];
    if (to !== undefined) { event.preventDefault(); go(to); } else keySwitch(event);
  }

  function keySwitch(event) {
    const keys = { r: "reference", p: "prediction", c: "prompts", f: "difference", d: "distance" };
    const letter = event.key.toLowerCase();
    if (keys[letter] && !checks[keys[letter]].box.disabled) toggle(keys[letter], !state.shown[keys[letter]]);
    else if (letter === "j") jump();
    else if (/^[1-9]$/.test(letter) && Number(letter) <= names.length) {
      toggleStructure(Number(letter) - 1, !state.structures[Number(letter) - 1]);
    } else return;
    event.preventDefault();
  }

  function toggle(key, on) {
    state.shown[key] = on;
    checks[key].box.checked = on;
    draw();
  }

  function toggleStructure(index, on) {
    state.structures[index] = on;
    structureRows[index].box.checked = on;
    draw();
  }

  // ---------------------------------------------------------------- zoom, place and light of the slice

  const MOST = 16;

  // Zoom, so that the point under the pointer stays where it is; without one, the middle.
  function zoomFlat(factor, event) {
    if (!state.loaded) return;
    const zoom = Math.min(MOST, Math.max(1, state.flat.zoom * factor));
    const grown = zoom / state.flat.zoom;
    const frame = (event?.currentTarget ?? flat).getBoundingClientRect(), box = boxOf(frame.width, frame.height);
    const at = event ? [event.clientX - frame.left, event.clientY - frame.top] : [frame.width / 2, frame.height / 2];
    const share = [(at[0] - box.left) / box.width - 0.5, (at[1] - box.top) / box.height - 0.5];
    Object.assign(state.flat, { zoom, x: state.flat.x / grown, y: state.flat.y / grown });
    moveFlat(share[0] * (1 / grown - 1), share[1] * (1 / grown - 1));
  }

  // Move the slice by shares of its own width and height; no edge comes farther than to the middle.
  function moveFlat(x, y) {
    const within = (value) => Math.min(0.5, Math.max(-0.5, value));
    const room = state.flat.zoom > 1 ? 1 : 0;
    state.flat.x = room * within(state.flat.x + x);
    state.flat.y = room * within(state.flat.y + y);
    root.dataset.zoom = state.flat.zoom.toFixed(3);
    draw();
  }

  function wholeSlice() {
    state.flat.zoom = 1;
    moveFlat(0, 0);
  }

  function light(text, key) {
    const slider = make("input", {
      type: "range", min: 20, max: 300, step: 5, value: state.light[key], class: "viewer-light",
      oninput: () => { state.light[key] = Number(slider.value); draw(); },
      ondblclick: () => { slider.value = "100"; state.light[key] = 100; draw(); },
    });
    return make("label", { class: "viewer-check" }, [text, slider]);
  }

  let swiped = null;
  const touching = new Map(); // pointers on the slice, by their number

  function swipeStart(event) {
    touching.set(event.pointerId, event);
    swiped = { x: event.clientX, y: event.clientY, place: state.place };
    event.currentTarget.focus({ preventScroll: true });
  }

  function swipeEnd(event) {
    touching.delete(event.pointerId);
  }

  const apart = ([one, other]) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);

  function swipe(event) {
    if (!event.buttons || !swiped || !state.loaded) return;
    if (touching.size === 2 && touching.has(event.pointerId)) {
      const before = apart([...touching.values()]);
      touching.set(event.pointerId, event);
      if (before) zoomFlat(apart([...touching.values()]) / before);
      return;
    }
    touching.set(event.pointerId, event);
    if (state.flat.zoom > 1) {
      const frame = flat.getBoundingClientRect(), box = boxOf(frame.width, frame.height);
      moveFlat((event.clientX - swiped.x) / box.width, (event.clientY - swiped.y) / box.height);
      Object.assign(swiped, { x: event.clientX, y: event.clientY });
      return;
    }
    const step = Math.max(6, flat.clientWidth / state.loaded.volume.slices.length);
    const place = swiped.place + Math.round((event.clientX - swiped.x) / step);
    if (place !== state.place) go(place);
  }

  function pickSlice(event) {
    if (!state.loaded) return;
    event.preventDefault();
    const box = strip.getBoundingClientRect();
    const last = state.loaded.volume.slices.length - 1;
    go(Math.round(((event.clientX - box.left - EDGE) / (box.width - 2 * EDGE)) * last));
  }

  // ---------------------------------------------------------------- drawing

  const EDGE = 8; // half of the slider's thumb: the strip's first and last slice lie where the thumb does
  let waiting = false;

  function draw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      if (!state.loaded) return;
      scale.hidden = !(state.shown.distance && state.shown.prediction && hasReference());
      drawSlice(flat, state.loaded);
      drawStrip();
      if (state.beside) drawSlice(flatBeside, state.beside.loaded);
      else drawSolid();
      root.dataset.drawn = String(Number(root.dataset.drawn || 0) + 1);
    });
  }

  const hasReference = () => state.loaded.volume.reference.some((mask) => mask !== null);

  // The canvas in device pixels; returns its context, scaled so that one unit is one CSS pixel.
  function prepared(canvas) {
    const ratio = Math.min(window.devicePixelRatio || 1, 3);
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    context.lineJoin = "round"; // from the first drawing on, as after any
    return { context, width, height, ratio };
  }

  const layer = document.createElement("canvas");

  // Where the slice lies in a canvas of this size.
  function boxOf(width, height) {
    const { volume } = state.loaded, { zoom, x, y } = state.flat;
    const fit = zoom * Math.min(width / volume.width_mm, height / volume.height_mm);
    const box = { width: volume.width_mm * fit, height: volume.height_mm * fit, per_mm: fit };
    box.left = (width - box.width) / 2 + x * box.width;
    box.top = (height - box.height) / 2 + y * box.height;
    return box;
  }

  // A slice of the volume under the configuration that is loaded.
  function drawSlice(canvas, loaded) {
    const { volume, view, picture, reference } = loaded;
    const { context, width, height } = prepared(canvas);
    if (!width || !height) return; // hidden; drawn once it has a size
    const [rows, columns] = volume.size;
    const box = boxOf(width, height);
    const column = state.place % volume.columns, row = Math.floor(state.place / volume.columns);
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    const { brightness, contrast } = state.light;
    if (brightness !== 100 || contrast !== 100) context.filter = `brightness(${brightness}%) contrast(${contrast}%)`;
    context.drawImage(picture, column * columns, row * rows, columns, rows, box.left, box.top, box.width, box.height);
    context.filter = "none";
    const pixels = (coded) => (coded ? maskOfSlice(coded, state.place, rows * columns) : null);
    if (state.shown.prediction) {
      loaded.rounds[shownRound(loaded)].forEach((coded, k) => {
        const mask = state.structures[k] && pixels(coded);
        if (!mask) return;
        if (!state.shown.difference) fill(context, mask, rows, columns, colours[k], box);
        outline(context, mask, rows, columns, box, [[1.4, data.structures[k].colour]]);
      });
    }
    if (state.shown.difference && hasReference()) drawDifferences(context, loaded, pixels, box);
    if (state.shown.reference) {
      reference.forEach((coded, k) => {
        const mask = state.structures[k] && pixels(coded);
        if (mask) outline(context, mask, rows, columns, box, [[3, "rgba(0, 0, 0, 0.45)"], [1.4, "#ffffff"]]);
      });
    }
    if (state.shown.prompts) {
      drawPrompts(context, view.prompts, volume.slices[state.place], box);
      drawClicks(context, shownClicks(loaded), volume.slices[state.place], box);
    }
    drawLetters(context, volume, width, height);
    drawBar(context, box, height);
  }

  // What only the prediction has, and what only the reference has, of the structures that are shown.
  function drawDifferences(context, loaded, pixels, box) {
    const shown = loaded.rounds[shownRound(loaded)];
    const [rows, columns] = loaded.volume.size;
    const surplus = new Uint8Array(rows * columns), lacking = new Uint8Array(rows * columns);
    names.forEach((_, k) => {
      if (!state.structures[k]) return;
      const predicted = pixels(shown[k]), wanted = pixels(loaded.reference[k]);
      for (let pixel = 0; pixel < rows * columns; pixel++) {
        const [here, there] = [predicted?.[pixel] ?? 0, wanted?.[pixel] ?? 0];
        if (here && !there) surplus[pixel] = 1;
        if (there && !here) lacking[pixel] = 1;
      }
    });
    fill(context, surplus, rows, columns, OUTSIDE, box, 200);
    fill(context, lacking, rows, columns, INSIDE, box, 200);
  }

  // A bar of so many millimetres, at most a third of the smallest side.
  function drawBar(context, box, height) {
    const length = [100, 50, 20, 10, 5, 2, 1].find((mm) => mm * box.per_mm <= height / 3);
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

  function fill(context, mask, rows, columns, [red, green, blue], box, opacity = 90) {
    layer.width = columns;
    layer.height = rows;
    const own = layer.getContext("2d");
    const pixels = own.createImageData(columns, rows);
    const out = pixels.data;
    for (let k = 0; k < mask.length; k++) {
      out[4 * k] = red;
      out[4 * k + 1] = green;
      out[4 * k + 2] = blue;
      out[4 * k + 3] = mask[k] ? opacity : 0;
    }
    own.putImageData(pixels, 0, 0);
    context.drawImage(layer, box.left, box.top, box.width, box.height);
  }

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

  // Edges (0 top, 1 right, 2 bottom, 3 left) that a border joins, by the corners that are set
  // (1 upper left, 2 upper right, 4 lower right, 8 lower left).
  const SEGMENTS = {
    1: [[3, 0]], 2: [[0, 1]], 3: [[3, 1]], 4: [[1, 2]], 5: [[3, 0], [1, 2]], 6: [[0, 2]], 7: [[3, 2]],
    8: [[2, 3]], 9: [[0, 2]], 10: [[0, 1], [2, 3]], 11: [[1, 2]], 12: [[1, 3]], 13: [[0, 1]], 14: [[3, 0]],
  };

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

  // Correcting clicks: the marks of points in their object's colour, on a white disc if positive, on a dark one if not.
  function drawClicks(context, clicks, slice, box) {
    for (const [, structure, clicked, x, y, label] of clicks) {
      if (clicked !== slice || !state.structures[structure]) continue;
      const cx = box.left + x * box.width, cy = box.top + y * box.height;
      const { colour } = data.structures[structure];
      context.beginPath();
      context.arc(cx, cy, 9, 0, 2 * Math.PI);
      context.fillStyle = label ? "#ffffff" : "#10151a";
      context.fill();
      context.lineWidth = 1.8;
      context.strokeStyle = label ? "#10151a" : "#ffffff";
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

  function drawPrompts(context, prompts, slice, box) {
    const own = prompts.filter((prompt) => prompt.slice === slice && state.structures[prompt.structure]);
    const place = ([x, y]) => [box.left + x * box.width, box.top + y * box.height];
    const twice = (thick, colour, path) => {
      for (const [line, ink] of [[thick + 2, "rgba(0, 0, 0, 0.7)"], [thick, colour]]) {
        context.lineWidth = line;
        context.strokeStyle = ink;
        context.stroke(path);
      }
    };
    context.lineCap = "round";
    context.lineJoin = "round";
    for (const prompt of own.filter((prompt) => prompt.box)) {
      const [left, top] = place(prompt.box), [right, bottom] = place(prompt.box.slice(2));
      const path = new Path2D();
      path.rect(left, top, right - left, bottom - top);
      twice(1.8, data.structures[prompt.structure].colour, path);
    }
    for (const wanted of [0, 1]) { // positive points last: they lie on top
      for (const prompt of own) {
        for (const [x, y, label] of prompt.points) {
          if (label !== wanted) continue;
          const [cx, cy] = place([x, y]);
          const colour = data.structures[prompt.structure].colour;
          if (label) {
            const path = star(cx, cy, 9);
            twice(2, "#ffffff", path);
            context.fillStyle = colour;
            context.fill(path);
          } else {
            // Objects can share a negative point, and it can lie below another's star: earlier ones have longer arms.
            const arm = 5 + 3 * Math.min(names.length - 1 - prompt.structure, 3);
            twice(2.4, colour, cross(cx, cy, arm));
          }
        }
      }
    }
  }

  function write(context, text, x, y, strength = 1) {
    context.globalAlpha = strength;
    context.font = "600 12px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineWidth = 3;
    context.strokeStyle = "rgba(0, 0, 0, 0.7)";
    context.strokeText(text, x, y);
    context.fillStyle = "#e8edf2";
    context.fillText(text, x, y);
    context.globalAlpha = 1;
  }

  // The patient's directions at the edges: right, left, anterior, posterior, superior, inferior.
  function drawLetters(context, volume, width, height) {
    const [, down, right] = volume.axes;
    write(context, right, width - 10, height / 2);
    write(context, OPPOSITE[right], 10, height / 2);
    write(context, down, width / 2, height - 10);
    write(context, OPPOSITE[down], width / 2, 10);
  }

  // Dice of every slice as a bar, marks of prompted slices, and slices with a prediction but no reference.
  function drawStrip() {
    const { volume } = state.loaded, { slice_dice } = ofRound();
    const { context, width, height } = prepared(strip);
    if (!width || !height) return;
    const count = volume.slices.length, marked = new Set(promptedPlaces());
    const step = count > 1 ? (width - 2 * EDGE) / (count - 1) : 0;
    const tall = height - 9, bar = Math.max(1, Math.min(step || 8, 14) - 1);
    context.fillStyle = "rgba(128, 140, 150, 0.18)";
    context.fillRect(EDGE - bar / 2, 0, width - 2 * EDGE + bar, tall);
    for (let place = 0; place < count; place++) {
      const x = EDGE + place * step;
      const value = slice_dice.length ? slice_dice[place][0] : null;
      if (value !== null) {
        context.fillStyle = "#7b8894";
        context.fillRect(x - bar / 2, tall * (1 - value), bar, tall * value);
        if (names.some((_, k) => isAstray(place, k))) {
          context.fillStyle = "#D55E00";
          context.fillRect(x - bar / 2, tall - 4, bar, 4);
        }
      }
      if (marked.has(place)) {
        context.fillStyle = "#0072B2";
        context.beginPath();
        context.moveTo(x, tall + 1);
        context.lineTo(x - 4, height);
        context.lineTo(x + 4, height);
        context.fill();
      }
    }
    const x = EDGE + state.place * step;
    context.fillStyle = "#ffffff";
    context.fillRect(x - 2.5, 0, 5, tall);
    context.fillStyle = "#1c2530";
    context.fillRect(x - 1.5, 0, 3, tall);
  }

  // ---------------------------------------------------------------- surfaces

  // Rotations are 3 x 3 matrices in rows, from the volume's x (right), y (up), z (towards the eye of the slices).
  const times = (a, b) => a.map((_, k) => [0, 1, 2].reduce((sum, i) => sum + a[3 * Math.floor(k / 3) + i] * b[3 * i + (k % 3)], 0));
  const aboutX = (angle) => [1, 0, 0, 0, Math.cos(angle), -Math.sin(angle), 0, Math.sin(angle), Math.cos(angle)];
  const aboutY = (angle) => [Math.cos(angle), 0, Math.sin(angle), 0, 1, 0, -Math.sin(angle), 0, Math.cos(angle)];

  function startTurn() {
    state.turn = times(aboutX(0.3), aboutY(0.6));
    state.zoom = 1;
    turned();
  }

  function turnBy(right, down) {
    state.turn = times(times(aboutX(down), aboutY(right)), state.turn);
    turned();
  }

  function zoomBy(factor) {
    state.zoom = Math.min(Math.max(state.zoom * factor, 0.5), 6);
    turned();
  }

  function turned() {
    root.dataset.turn = state.turn.map((value) => value.toFixed(3)).join(" ");
    root.dataset.zoom = state.zoom.toFixed(3);
    draw();
  }

  function wheelSolid(event) {
    if (event.ctrlKey || !state.loaded) return;
    const factor = Math.exp(-Math.sign(event.deltaY) * 0.12);
    if (state.zoom * factor < 0.5 || state.zoom * factor > 6) return; // at the end the page itself scrolls on
    event.preventDefault();
    zoomBy(factor);
  }

  function keySolid(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const angle = Math.PI / 18;
    const turns = { ArrowLeft: [-angle, 0], ArrowRight: [angle, 0], ArrowUp: [0, -angle], ArrowDown: [0, angle] };
    if (turns[event.key]) turnBy(...turns[event.key]);
    else if (event.key === "+" || event.key === "=") zoomBy(1.25);
    else if (event.key === "-") zoomBy(1 / 1.25);
    else if (event.key === "0" || event.key === "Home") startTurn();
    else return keySwitch(event);
    event.preventDefault();
  }

  let dragged = null;

  function dragStart(event) {
    dragged = { x: event.clientX, y: event.clientY };
    solid.setPointerCapture(event.pointerId);
    solid.focus({ preventScroll: true });
  }

  function drag(event) {
    if (!dragged) return;
    state.moving = true;
    turnBy((event.clientX - dragged.x) * 0.01, (event.clientY - dragged.y) * 0.01);
    dragged = { x: event.clientX, y: event.clientY };
  }

  function dragEnd() {
    dragged = null;
    state.moving = false;
    draw();
  }

  const drawnSurfaces = document.createElement("canvas");
  let drawnFor = "";

  function drawSolid() {
    const { volume, surfaces, referenceSurfaces } = state.loaded;
    const { context, width, height, ratio } = prepared(solid);
    if (!width || !height) return;
    // Finer than the screen while nothing moves, for smooth edges.
    const fine = state.moving ? 1 : Math.max(2, ratio);
    const columns = Math.round(width * fine), rows = Math.round(height * fine);
    const unit = (state.zoom * 1.35 * Math.min(width, height)) / Math.hypot(...volume.extent_mm);
    const both = state.shown.prediction && state.shown.reference;
    const { reference, prediction, distance } = state.shown;
    // Another slice moves only the frame: the surfaces are drawn again when something about them has changed.
    const wanted = JSON.stringify([
      state.configuration, state.role, columns, rows, state.zoom, state.turn, reference, prediction, distance,
      state.structures,
    ]);
    if (wanted !== drawnFor) {
      drawSurfaces({ columns, rows, unit: unit * fine, turn: state.turn }, both);
      drawnFor = wanted;
    }
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    context.drawImage(drawnSurfaces, 0, 0, width, height);
    drawFrame(context, volume, width, height, unit);
    const any = surfaces.some(Boolean) || referenceSurfaces.some(Boolean);
    solidText.textContent = !any ? "No surfaces: left out for the size of this page, or nothing to show."
      : both ? "Solid: prediction; translucent: reference; frame: this slice." : "Frame: this slice.";
    if (any && shownRound() < lastRound()) solidText.textContent += ` Predicted surfaces are those of round ${lastRound()}.`;
    const { model, scheme } = data.configurations[state.configuration];
    solid.setAttribute("aria-label", `Surfaces of ${volume.name} in 3D, ${model}, ${scheme}, slice ${volume.slices[state.place]}`);
  }

  function drawSurfaces(camera, both) {
    const { surfaces, referenceSurfaces } = state.loaded;
    const { columns, rows } = camera;
    const opaque = buffers(columns, rows), clear = buffers(columns, rows);
    names.forEach((_, k) => {
      if (!state.structures[k]) return;
      if (state.shown.prediction && surfaces[k]) {
        const byDistance = state.shown.distance && surfaces[k].distances;
        rasterise(surfaces[k], camera, opaque, byDistance ? distanceColour(surfaces[k].distances) : () => colours[k]);
      }
      if (state.shown.reference && referenceSurfaces[k]) {
        rasterise(referenceSurfaces[k], camera, both ? clear : opaque, () => (both ? [255, 255, 255] : colours[k]));
      }
    });
    drawnSurfaces.width = columns;
    drawnSurfaces.height = rows;
    const context = drawnSurfaces.getContext("2d");
    context.putImageData(composed(context, opaque, clear, columns, rows), 0, 0);
  }

  const buffers = (columns, rows) => ({
    depth: new Float32Array(columns * rows).fill(-Infinity),
    // Lit red, green, blue and how squarely the surface faces the eye, all 0 to 255.
    values: new Uint8ClampedArray(4 * columns * rows),
  });

  const distanceColour = (distances) => (vertex) => {
    const share = Math.max(-1, Math.min(1, (distances[vertex] * data.step) / SCALE_MM));
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

  // The border of the slice that is shown, and the patient's directions, over the surfaces.
  function drawFrame(context, volume, width, height, unit) {
    const [deep, high, wide] = volume.extent_mm;
    const spacing = deep / volume.extent_slices;
    const sign = volume.mirrored ? -1 : 1;
    const z = sign * ((volume.slices[state.place] - volume.first) * spacing - deep / 2);
    const onScreen = (x, y, depth) => {
      const t = state.turn;
      return [width / 2 + unit * (t[0] * x + t[1] * y + t[2] * depth), height / 2 - unit * (t[3] * x + t[4] * y + t[5] * depth)];
    };
    const corners = [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([x, y]) => onScreen((x * wide) / 2, (y * high) / 2, z));
    context.beginPath();
    corners.forEach((corner, k) => context[k ? "lineTo" : "moveTo"](...corner));
    context.closePath();
    context.lineWidth = 1;
    context.strokeStyle = "rgba(255, 255, 255, 0.55)";
    context.stroke();
    const [along, down, right] = volume.axes;
    const ends = [
      [right, wide / 2, 0, 0], [OPPOSITE[right], -wide / 2, 0, 0], [down, 0, -high / 2, 0], [OPPOSITE[down], 0, high / 2, 0],
      [along, 0, 0, (sign * deep) / 2], [OPPOSITE[along], 0, 0, (-sign * deep) / 2],
    ];
    for (const [letter, x, y, depth] of ends) {
      const [sx, sy] = onScreen(1.08 * x, 1.08 * y, 1.08 * depth);
      const behind = state.turn[6] * x + state.turn[7] * y + state.turn[8] * depth < 0;
      write(context, letter, Math.min(Math.max(sx, 8), width - 8), Math.min(Math.max(sy, 9), height - 9), behind ? 0.45 : 1);
    }
  }

  // ---------------------------------------------------------------- start

  // A volume that the address names (#volume=knee_7) is shown in the first configuration that has it.
  function chooseByAddress() {
    const name = new URLSearchParams(location.hash.slice(1)).get("volume");
    for (const [index, configuration] of data.configurations.entries()) {
      for (const [role, place] of Object.entries(configuration.roles)) {
        if (data.volumes[configuration.views[place].volume].name !== name) continue;
        mount.scrollIntoView();
        return choose(index, role);
      }
    }
    return null;
  }

  new ResizeObserver(draw).observe(root);
  window.addEventListener("beforeprint", draw);
  window.addEventListener("hashchange", chooseByAddress);
  chooseByAddress() ?? choose(0, "worst");
})();
