// The data of the page: entries of its JSON become arrays. Written by pack.py.
//
// An entry is {shape, dtype, deflate, data}, data in base64; a float16 has a scale, a power of two; numbers that were
// rounded to steps have {axis, scale, offset}: x = offset + scale * step, a scale and an offset for each channel.

/** The object in <script type="application/json" id="data">. */
function readData() {
  return JSON.parse(document.getElementById("data").textContent);
}

/** An entry -> {shape, data}, data a Float32Array. */
async function decode(entry) {
  const size = entry.shape.reduce((product, side) => product * side, 1);
  const bytes = await bytesOf(entry);
  let data;
  if (entry.dtype === "float32") data = new Float32Array(bytes.buffer, 0, size);
  else if (entry.dtype === "float16") data = halves(bytes, size);
  else data = Float32Array.from(entry.dtype === "int8" ? new Int8Array(bytes.buffer) : bytes);
  if (entry.offset) await toSteps(data, entry);
  else if (entry.scale) for (let i = 0; i < size; i++) data[i] *= entry.scale;
  return { shape: entry.shape, data };
}

/** Base64, inflated where it was deflated, in a buffer of its own. */
async function bytesOf(entry) {
  const text = atob(entry.data);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  if (!entry.deflate) return bytes;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** x = offset + scale * step, in place; the channels are all axes but one. */
async function toSteps(data, { shape, axis, scale, offset }) {
  const [scales, offsets] = [(await decode(scale)).data, (await decode(offset)).data];
  const n = shape[axis];
  const inner = shape.slice(axis + 1).reduce((product, side) => product * side, 1);
  for (let i = 0; i < data.length; i++) {
    const channel = Math.floor(i / (n * inner)) * inner + (i % inner);
    data[i] = offsets[channel] + scales[channel] * data[i];
  }
}

/** float16 by hand, since not every browser has Float16Array: all low bytes, then all high bytes. */
function halves(bytes, size) {
  const data = new Float32Array(size);
  for (let i = 0; i < size; i++) {
    const bits = bytes[i] | (bytes[size + i] << 8);
    const sign = bits >> 15 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    data[i] = sign * (exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15));
  }
  return data;
}
