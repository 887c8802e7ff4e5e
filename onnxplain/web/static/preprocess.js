// From a photograph to the network's input, as onnxplain.runtime.inputs.batches does it: resized,
// fitted, scaled to [0, 1], normalised. `pre` is model.json's "preprocessing".

import { resampleColumns, resampleRows, taps } from './resample.js';

export const STRIP = 256; // rows decoded at a time: a phone cannot hold a large photograph's pixels twice

/**
 * What the network sees of a picture.
 *
 * @param picture {width, height, rows(top, count)}: the RGBA pixels of some of its rows
 * @returns RGB pixels, pre.width × pre.height; `pre.fill` where the picture is smaller than that
 */
export function crop(picture, pre) {
  const { width, height, left, top } = placement(picture, pre);
  const { interpolation } = pre;
  const columns = taps(picture.width, width, left, pre.width, interpolation);
  const rows = taps(picture.height, height, top, pre.height, interpolation);

  const used = rows.filter(({ weights }) => weights.length);
  const first = used[0].start;
  const end = used.at(-1).start + used.at(-1).weights.length;
  const narrow = new Uint8ClampedArray(3 * pre.width * (end - first));
  for (let y = first; y < end; y += STRIP) {
    const strip = picture.rows(y, Math.min(STRIP, end - y));
    narrow.set(resampleRows(strip, picture.width, columns), 3 * pre.width * (y - first));
  }
  const seen = resampleColumns(narrow, pre.width, rows, first);
  if (pre.fill) border(seen, rows, columns, pre.fill);
  return seen;
}

/** Paint in grey what lies beside the picture. */
function border(rgb, rows, columns, grey) {
  rows.forEach((row, y) => {
    columns.forEach((column, x) => {
      if (row.weights.length && column.weights.length) return;
      const at = 3 * (y * columns.length + x);
      rgb.fill(grey, at, at + 3);
    });
  });
}

/** The size that a picture is resized to, and where in that the crop begins. */
export function placement(picture, pre) {
  const [width, height] = resized(picture, pre);
  const begin = pre.half === 'down' ? (surplus) => Math.floor(surplus / 2) : offset;
  return { width, height, left: begin(width - pre.width), top: begin(height - pre.height) };
}

function resized({ width, height }, pre) {
  if (pre.fit === 'squash') return [pre.width, pre.height];
  if (pre.fit === 'letterbox') {
    return [
      Math.max(Math.min(round((width * pre.height) / height), pre.width), 1),
      Math.max(Math.min(round((height * pre.width) / width), pre.height), 1),
    ];
  }
  const shorter = Math.min(width, height);
  return [width, height].map((side) => Math.floor((pre.resize * side) / shorter));
}

/** As Python rounds: half to even. */
function round(x) {
  const down = Math.floor(x);
  return x - down === 0.5 ? down + (down % 2) : Math.round(x);
}

/** Where a centre crop begins, as torchvision rounds it: half to even, but padding toward 0. */
function offset(surplus) {
  if (surplus <= 0) return Math.trunc(surplus / 2);
  const half = Math.floor(surplus / 2);
  return surplus % 2 ? half + (half % 2) : half;
}

/** The network's input, [C,H,W], of RGB pixels; a network of one channel gets the luminance. */
export function normalise(rgb, pre) {
  const plane = pre.width * pre.height;
  const x = new Float32Array(pre.mean.length * plane);
  pre.mean.forEach((mean, c) => {
    for (let i = 0; i < plane; i++) {
      const value = pre.mean.length === 1 ? luminance(rgb, 3 * i) : rgb[3 * i + c];
      // Rounded to float32 at each step, as numpy does.
      const centred = Math.fround(Math.fround(value / 255) - Math.fround(mean));
      x[c * plane + i] = centred / Math.fround(pre.std[c]);
    }
  });
  return x;
}

/** Of the pixel whose red is at `i`. */
export function luminance(rgb, i) {
  return (rgb[i] * 19595 + rgb[i + 1] * 38470 + rgb[i + 2] * 7471 + 0x8000) >> 16;
}
