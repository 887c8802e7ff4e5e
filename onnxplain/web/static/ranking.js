// From numbers to what a person reads.

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

/** What a slot shows, in words: {name, score}; no score where nothing is explained yet. */
export function told({ model, photograph }, { target, explanation }) {
  if (!model.objective) {
    const { probabilities } = photograph;
    const score = probabilities && target >= 0 ? percent(probabilities[target]) : '';
    return { name: target < 0 ? '…' : className(model, target), score };
  }
  if (!explanation) return { name: '…', score: '' };
  return { name: explainedName(model, explanation.index), score: digits(explanation.score) };
}

/** What an objective explained; null where it chooses no class. */
function explainedName({ objective, labels }, index) {
  if (index === null) return objective.name;
  if (index < 0) return objective.no_class;
  return labels[index] ?? `${objective.name === 'value' ? 'value' : 'class'} ${index}`;
}

/** How sure the network is of a target, or its objective, of what the engine answers. */
export function scoreOf(model, { logits, score }, target) {
  return model.objective ? score : likelihoods(model, logits)[target];
}

/** The same as text. */
export function scoreText(model, score) {
  return model.objective ? digits(score) : percent(score);
}

/** A number to four digits. */
function digits(number) {
  const isTiny = number && Math.abs(number) < 0.001;
  return isTiny ? number.toExponential(3) : String(Number(number.toPrecision(4)));
}

export function className(model, index) {
  return model.labels[index] ?? `class ${index}`;
}

/** "38.1 %", with a space that does not break. */
export function percent(probability) {
  return probability < 0.0005 ? '<\u20090.1\u202f%' : `${(100 * probability).toFixed(1)}\u202f%`;
}
