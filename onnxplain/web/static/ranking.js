// From logits to what a person reads.

/** Probabilities of the logits, by the activation that the network ends in. */
export function likelihoods(model, logits) {
  return model.activation === 'sigmoid'
    ? Float64Array.from(logits, (value) => 1 / (1 + Math.exp(-value)))
    : softmax(logits);
}

export function softmax(logits) {
  const highest = logits.reduce((a, b) => Math.max(a, b));
  const powers = Float64Array.from(logits, (value) => Math.exp(value - highest));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

/** Class indices, the likeliest first. */
export function ranking(probabilities) {
  const indices = Array.from(probabilities, (_, index) => index);
  return indices.sort((a, b) => probabilities[b] - probabilities[a]);
}

export function className(model, index) {
  return model.labels[index] ?? `class ${index}`;
}

/** "38.1 %", with a space that does not break. */
export function percent(probability) {
  return probability < 0.0005 ? '<\u20090.1\u202f%' : `${(100 * probability).toFixed(1)}\u202f%`;
}
