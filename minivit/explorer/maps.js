// Colours and canvases: a map over the photo, the grid of patches, the legend, thumbnails.

// Nine colours of viridis (CC0), and blue - white - orange for numbers of two signs; between them straight lines.
const SCALES = {
  magnitude: ["440154", "472d7b", "3b528b", "2c728e", "21918c", "28ae80", "5ec962", "addc30", "fde725"].map(rgb),
  signed: ["08306b", "2171b5", "6baed6", "c6dbef", "f7f7f7", "fdd0a2", "fd8d3c", "d94801", "7f2704"].map(rgb),
};

function rgb(hex) {
  return [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

// The colour of a share 0 to 1 of a scale: three numbers 0 to 255.
function colour(anchors, share) {
  const at = Math.min(Math.max(share || 0, 0), 1) * (anchors.length - 1);
  const below = Math.min(Math.floor(at), anchors.length - 2);
  return anchors[below].map((x, c) => x + (at - below) * (anchors[below + 1][c] - x));
}

const COLOURS = Object.fromEntries(
  Object.entries(SCALES).map(([name, anchors]) => [name, Array.from({ length: 256 }, (_, i) => colour(anchors, i / 255))])
);

// Paints a map into a canvas of one pixel a value; whoever shows it makes it larger without smoothing.
function paintMap(canvas, map) {
  const { rows, columns } = map;
  if (canvas.width !== columns || canvas.height !== rows) [canvas.width, canvas.height] = [columns, rows];
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  const at = map.colours ? (n) => map.colours.subarray(3 * n, 3 * n + 3) : colourOfValue(map);
  for (let n = 0; n < rows * columns; n++) {
    image.data.set(at(n), 4 * n);
    image.data[4 * n + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

function colourOfValue(map) {
  const [low, high] = ends(map);
  const colours = COLOURS[map.signed ? "signed" : "magnitude"];
  const width = high - low || 1;
  return (n) => colours[Math.round((255 * (map.values[n] - low)) / width)] ?? colours[0];
}

// A bar of the scale's colours with a mark at `value`, if there is one.
function paintLegend(canvas, map, value) {
  const context = sharp(canvas);
  const { width, height } = canvas;
  const colours = COLOURS[map.signed ? "signed" : "magnitude"];
  for (let x = 0; x < width; x++) {
    context.fillStyle = `rgb(${colours[Math.floor((255 * x) / width)]})`;
    context.fillRect(x, 0, 1, height);
  }
  if (value === null) return;
  const [low, high] = ends(map);
  const x = Math.min(Math.max((value - low) / (high - low || 1), 0), 1) * width;
  mark(context, [[x, 0, x, height]]);
}

// Sets a canvas to the screen's own pixels, and clears it.
function sharp(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const width = Math.max(Math.round(canvas.clientWidth * ratio), 1);
  const height = Math.max(Math.round(canvas.clientHeight * ratio), 1);
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  return context;
}

// Lines that are seen on any colour: black, and white within it.
function mark(context, lines, dash = []) {
  const thin = 2 * (window.devicePixelRatio || 1);
  for (const [ink, wide] of [["black", 2.5 * thin], ["white", thin]]) {
    context.strokeStyle = ink;
    context.lineWidth = wide;
    context.setLineDash(ink === "white" ? dash : []);
    context.beginPath();
    for (const [x0, y0, x1, y1] of lines) {
      context.moveTo(x0, y0);
      context.lineTo(x1, y1);
    }
    context.stroke();
  }
  context.setLineDash([]);
}

// The photo under its patches: draws picture, map, grid and the two chosen tokens, and says which patch was pointed at.
class PatchGrid {
  constructor(canvas, choose) {
    this.canvas = canvas;
    this.small = document.createElement("canvas"); // the map, one pixel a value
    canvas.addEventListener("pointerdown", (event) => {
      const patch = this.patchAt(event);
      if (patch !== null) choose(patch, event.shiftKey);
    });
  }

  patchAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const [rows, columns] = this.grid;
    const row = Math.floor(((event.clientY - box.top) / box.height) * rows);
    const column = Math.floor(((event.clientX - box.left) / box.width) * columns);
    return row < 0 || row >= rows || column < 0 || column >= columns ? null : 1 + row * columns + column;
  }

  draw({ picture, map, opacity, source, patch, key }) {
    this.grid = source.config.grid;
    const context = sharp(this.canvas);
    const { width, height } = this.canvas;
    context.imageSmoothingEnabled = source.kind === "photo"; // a digit is eight pixels wide: let them be seen
    if (picture) context.drawImage(picture, 0, 0, width, height);
    if (map) {
      paintMap(this.small, map);
      context.imageSmoothingEnabled = false;
      context.globalAlpha = opacity;
      context.drawImage(this.small, 0, 0, width, height);
      context.globalAlpha = 1;
    }
    this.lines(context, width, height);
    this.frame(context, key, "k", [6, 6]);
    this.frame(context, patch, "q", []);
  }

  lines(context, width, height) {
    const [rows, columns] = this.grid;
    context.fillStyle = "rgba(128, 128, 128, 0.45)";
    for (let row = 1; row < rows; row++) context.fillRect(0, Math.round((row * height) / rows), width, 1);
    for (let column = 1; column < columns; column++) context.fillRect(Math.round((column * width) / columns), 0, 1, height);
  }

  // A frame around a patch, with its letter, so that query and key are told apart without colour.
  frame(context, patch, letter, dash) {
    if (!patch) return; // CLS has no place in the photo
    const [rows, columns] = this.grid;
    const [w, h] = [this.canvas.width / columns, this.canvas.height / rows];
    const [x, y] = [((patch - 1) % columns) * w, Math.floor((patch - 1) / columns) * h];
    const corners = [[x, y, x + w, y], [x + w, y, x + w, y + h], [x + w, y + h, x, y + h], [x, y + h, x, y]];
    mark(context, corners, dash);
    const side = Math.min(16 * (window.devicePixelRatio || 1), w / 2, h / 2);
    context.fillStyle = "black";
    context.fillRect(letter === "q" ? x : x + w - side, y, side, side);
    context.fillStyle = "white";
    context.font = `bold ${0.9 * side}px sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText(letter, (letter === "q" ? x : x + w - side) + side / 2, y + side / 2);
  }
}

// Something that can be drawn for what a source gives as its picture; null while a photo is still being decoded.
function drawable(picture, loaded) {
  if (typeof picture === "string") {
    const image = new Image();
    image.onload = loaded;
    image.src = picture;
    return image;
  }
  const canvas = document.createElement("canvas");
  paintPixels(canvas, picture);
  return canvas;
}

// pixel_values (C, H, W) as grey or colour, from the least number to the largest.
function paintPixels(canvas, { data, H, W }) {
  [canvas.width, canvas.height] = [W, H];
  const image = canvas.getContext("2d").createImageData(W, H);
  const channels = data.length / (H * W) >= 3 ? [0, 1, 2] : [0, 0, 0];
  const low = Math.min(...data);
  const width = Math.max(...data) - low || 1;
  for (let n = 0; n < H * W; n++) {
    channels.forEach((c, j) => (image.data[4 * n + j] = (255 * (data[c * H * W + n] - low)) / width));
    image.data[4 * n + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}
