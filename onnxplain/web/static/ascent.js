// Feature accentuation, as onnxplain.runtime.ascent does it: follow the pullback, so that what the
// network takes for a class stands out. All of it happens where pixels are in [-1, 1], [C,H,W].

// α, in the L2 norm of that space, and ε, the same: how far from the photograph it may go.
const DEFAULTS = { alpha: 20, eps: 100 };

/** From the network's input to pixels in [-1, 1]. */
export function toPixels(x, pre) {
  return perChannel(x, pre, (value, mean, std) => 2 * (value * std + mean) - 1);
}

/** And back. */
export function fromPixels(pixels, pre) {
  return perChannel(pixels, pre, (value, mean, std) => ((value + 1) / 2 - mean) / std);
}

/** One step from `x` along `pullback`: clip(x₀ + P_ε(x + α·g/‖g‖₂ − x₀), −1, 1), x₀ = `start`. */
export function ascend(start, x, pullback, pre, { alpha, eps } = DEFAULTS) {
  const g = perChannel(pullback, pre, (value, mean, std) => value / (2 * std));
  const step = alpha / (norm(g) || 1);
  const displacement = x.map((value, i) => value + step * g[i] - start[i]);
  const shrink = eps === null ? 1 : eps / Math.max(norm(displacement), eps);
  return start.map((value, i) => Math.min(1, Math.max(-1, value + shrink * displacement[i])));
}

function perChannel(values, pre, change) {
  const plane = values.length / pre.mean.length;
  return values.map((value, i) => {
    const channel = Math.floor(i / plane);
    return change(value, pre.mean[channel], pre.std[channel]);
  });
}

function norm(values) {
  return Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
}
