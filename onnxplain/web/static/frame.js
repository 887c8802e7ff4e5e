// A picture's own pixels, for a graph that resizes and normalises them itself.

import { luminance, STRIP } from './preprocess.js';

const ORDERS = { rgb: [0, 1, 2], bgr: [2, 1, 0] };

/**
 * The bytes of a picture as onnxplain.contract.pixels names their order.
 *
 * @param picture {width, height, rows(top, count)}: the RGBA pixels of some of its rows
 * @param pixels rgb or bgr, [h,w,3]; each also planar, [3,h,w]; or gray, [h,w]
 * @returns {bytes, width, height}
 */
export function frame({ width, height, rows }, pixels) {
  const [order, planar] = pixels.split('-');
  const channels = ORDERS[order];
  const plane = width * height;
  const bytes = new Uint8Array(channels ? 3 * plane : plane);
  const [step, apart] = planar ? [1, plane] : [3, 1];
  for (let top = 0; top < height; top += STRIP) {
    const rgba = rows(top, Math.min(STRIP, height - top));
    for (let i = 0, at = top * width; i < rgba.length; i += 4, at++) {
      if (!channels) {
        bytes[at] = luminance(rgba, i);
        continue;
      }
      for (let c = 0; c < 3; c++) bytes[step * at + apart * c] = rgba[i + channels[c]];
    }
  }
  return { bytes, width, height };
}

/** The shape of `n` such frames. */
export function shapeOf({ width, height }, pixels, n) {
  if (pixels === 'gray') return [n, height, width];
  return pixels.endsWith('planar') ? [n, 3, height, width] : [n, height, width, 3];
}
