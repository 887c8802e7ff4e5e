// Pillow's image resampling, bit for bit: the network was trained on what Pillow makes of a
// photograph, and a browser's own scaling (no antialiasing, or another kernel) is not that.
// (Since version 13 Pillow resamples the columns of tall pictures first: a difference of 1 in 255.)

const ONE = 2 ** 22; // weights are whole multiples of 1 / ONE, as in Pillow

const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

// The weight at a distance x from the centre, |x| ≤ support, before it is stretched.
const FILTERS = {
  box: { support: 0.5, at: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  bilinear: { support: 1, at: (x) => Math.max(0, 1 - Math.abs(x)) },
  hamming: { support: 1, at: (x) => sinc(x) * (0.54 + 0.46 * Math.cos(Math.PI * x)) },
  bicubic: { support: 2, at: (x) => cubic(Math.abs(x)) },
  lanczos: { support: 3, at: (x) => sinc(x) * sinc(x / 3) },
};

function cubic(x) {
  return x < 1 ? (1.5 * x - 2.5) * x * x + 1 : -0.5 * (((x - 5) * x + 8) * x - 4);
}

/**
 * Which old pixels, with which weights, make each new pixel of one axis.
 *
 * A new pixel outside [0, newSize) is made of none: black.
 *
 * @param size the axis' old length; `newSize` the new one
 * @param first the first new pixel wanted; `count` how many
 * @returns for each: {start, weights}, `start` being the old pixel of the first weight
 */
export function taps(size, newSize, first, count, interpolation) {
  const one = interpolation === 'nearest' ? nearest : filtered;
  return Array.from({ length: count }, (_, i) => {
    const at = first + i;
    const outside = at < 0 || at >= newSize;
    return outside ? { start: 0, weights: [] } : one(at, size, newSize, FILTERS[interpolation]);
  });
}

function nearest(at, size, newSize) {
  return { start: Math.floor(((at + 0.5) * size) / newSize), weights: [ONE] };
}

function filtered(at, size, newSize, filter) {
  const scale = size / newSize;
  const stretch = Math.max(scale, 1); // antialiasing: the filter widens as the picture shrinks
  const centre = (at + 0.5) * scale;
  const reach = filter.support * stretch;
  const start = Math.max(0, Math.trunc(centre - reach + 0.5));
  const end = Math.min(size, Math.trunc(centre + reach + 0.5));
  const weights = [];
  for (let x = start; x < end; x++) {
    const distance = (x - centre + 0.5) * (1 / stretch); // rounded as Pillow rounds it
    weights.push(Math.abs(distance) <= filter.support ? filter.at(distance) : 0);
  }
  const sum = weights.reduce((a, b) => a + b, 0);
  return { start, weights: weights.map((w) => whole((w / sum) * ONE)) };
}

const whole = (x) => Math.trunc(x < 0 ? x - 0.5 : x + 0.5);

/** Resample rows of RGBA pixels, `width` long, to RGB rows as long as `columns` (taps). */
export function resampleRows(rgba, width, columns) {
  const height = rgba.length / (4 * width);
  const out = new Uint8ClampedArray(3 * columns.length * height);
  let o = 0;
  for (let y = 0; y < height; y++) {
    for (const { start, weights } of columns) {
      let [r, g, b] = [ONE / 2, ONE / 2, ONE / 2];
      let i = 4 * (y * width + start);
      for (const w of weights) {
        r += w * rgba[i];
        g += w * rgba[i + 1];
        b += w * rgba[i + 2];
        i += 4;
      }
      out[o++] = Math.floor(r / ONE);
      out[o++] = Math.floor(g / ONE);
      out[o++] = Math.floor(b / ONE);
    }
  }
  return out;
}

/** Resample RGB pixels, `width` wide, along their columns: `rows` (taps) count from `first`. */
export function resampleColumns(rgb, width, rows, first) {
  const length = 3 * width;
  const out = new Uint8ClampedArray(length * rows.length);
  rows.forEach(({ start, weights }, y) => {
    for (let x = 0; x < length; x++) {
      let sum = ONE / 2;
      let i = (start - first) * length + x;
      for (const w of weights) {
        sum += w * rgb[i];
        i += length;
      }
      out[y * length + x] = Math.floor(sum / ONE);
    }
  });
  return out;
}
