// Pictures of numbers, the same as onnxplain.runtime.pictures.render and explanation draw them. Values are
// [C,H,W] with C = 1 or 3; every picture is RGBA, `width` wide.

const SIGNED_WHITE_POINT = 99.5; // the percentile of |value| that becomes full colour
const HEAT_WHITE_POINT = 99;
const SORTED = 3840; // values of which a white point is the least, at most
const SMOOTHING = 0.02; // the Gaussian's sigma, as a part of the shorter side

// Black, violet, red, orange, pale yellow: lightness rises evenly (matplotlib's inferno, CC0).
const HEAT = [
  [0, 0, 4],
  [31, 12, 72],
  [85, 15, 109],
  [136, 34, 106],
  [186, 54, 85],
  [227, 89, 51],
  [249, 140, 10],
  [249, 201, 50],
  [252, 255, 164],
];

/** A pullback or a difference: zero is mid-grey, colours are kept, symmetric about zero. */
export function signedImage(values, channels, width) {
  const height = values.length / channels / width;
  const white = whitePoint(values.map(Math.abs), SIGNED_WHITE_POINT, width, height);
  return pixelsImage(
    values.map((value) => clip(value / white, -1, 1)),
    channels,
  );
}

/** Pixels in [-1, 1]. */
export function pixelsImage(values, channels) {
  const plane = values.length / channels;
  return rgba(plane, (i) =>
    [0, 1, 2].map((c) => 127.5 + 127.5 * values[(c % channels) * plane + i]),
  );
}

/** RGB pixels as they are. */
export function photographImage(rgb) {
  return rgba(rgb.length / 3, (i) => [rgb[3 * i], rgb[3 * i + 1], rgb[3 * i + 2]]);
}

/** The heatmap of a pullback over the photograph: the hotter, the less of it is seen. */
export function overlayImage(rgb, pullback, channels, width) {
  const heat = heatmap(pullback, channels, width);
  return rgba(heat.length, (i) => {
    const grey = 0.299 * rgb[3 * i] + 0.587 * rgb[3 * i + 1] + 0.114 * rgb[3 * i + 2];
    const cover = 0.85 * heat[i] ** 0.75;
    return heatColour(heat[i]).map((colour) => (1 - cover) * 0.8 * grey + cover * colour);
  });
}

/** Where a pullback is strong, [H,W] in [0, 1]: |pullback| over all channels, smoothed. */
export function heatmap(pullback, channels, width) {
  const plane = pullback.length / channels;
  const height = plane / width;
  const strength = new Float64Array(plane);
  pullback.forEach((value, i) => (strength[i % plane] += Math.abs(value)));
  const sigma = SMOOTHING * Math.min(width, height);
  const along = smooth(strength, height, width, width, 1, sigma);
  const smoothed = smooth(along, width, height, 1, width, sigma);
  const white = whitePoint(smoothed, HEAT_WHITE_POINT, width, height);
  return smoothed.map((value) => clip(value / white, 0, 1));
}

/**
 * Smooth each of `lines` lines of `length` values by a Gaussian; the weights sum to 1 also at the
 * ends. A line begins `between` after the one before, and its values are `apart`.
 */
function smooth(values, lines, length, between, apart, sigma) {
  const reach = Math.ceil(4 * sigma);
  const bell = Float64Array.from({ length: reach + 1 }, (_, d) =>
    Math.exp(-((d / sigma) ** 2) / 2),
  );
  const out = new Float64Array(values.length);
  for (let line = 0; line < lines; line++) {
    for (let at = 0; at < length; at++) {
      let [sum, weights] = [0, 0];
      for (let j = Math.max(0, at - reach); j <= Math.min(length - 1, at + reach); j++) {
        const weight = bell[Math.abs(j - at)];
        sum += weight * values[line * between + j * apart];
        weights += weight;
      }
      out[line * between + at * apart] = sum / weights;
    }
  }
  return out;
}

/**
 * What to divide nonnegative values [.., height, width] by so that those up to the percentile lie in
 * [0, 1]: the k-th greatest of every s-th row and column (onnxplain.contract.picture).
 */
function whitePoint(values, percentile, width, height) {
  const channels = values.length / (width * height);
  for (let step = 1; ; step++) {
    const count = channels * Math.ceil(height / step) * Math.ceil(width / step);
    const above = Math.ceil(((count - 1) * percentile) / 100);
    if (count - above > SORTED) continue;
    const thinned = values.filter(
      (_, i) => (i % width) % step === 0 && (Math.floor(i / width) % height) % step === 0,
    );
    const greatest = values.reduce((most, value) => Math.max(most, value), 0);
    return thinned.sort()[above] || greatest || 1; // typed arrays: by number
  }
}

function heatColour(heat) {
  const position = heat * (HEAT.length - 1);
  const below = Math.min(Math.floor(position), HEAT.length - 2);
  return HEAT[below].map((c, i) => c + (position - below) * (HEAT[below + 1][i] - c));
}

function rgba(count, colour) {
  const out = new Uint8ClampedArray(4 * count); // rounds half to even, as numpy does
  for (let i = 0; i < count; i++) {
    out.set(colour(i), 4 * i);
    out[4 * i + 3] = 255;
  }
  return out;
}

function clip(value, low, high) {
  return Math.min(high, Math.max(low, value));
}
