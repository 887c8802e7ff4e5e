// A small line of numbers, one per step.

const HEIGHT = 150;
const MARGIN = { top: 12, right: 62, bottom: 28, left: 62 }; // room for a percentage at each end

/**
 * Draw it into `element`.
 *
 * @param what the numbers are, in words
 * @param scores the first is before the first of one or more steps
 * @param written a number as text
 * @param range the least and the greatest that there is room for
 */
export function showChart(element, what, scores, written, [low, high]) {
  const width = Math.max(280, element.clientWidth);
  const last = scores.length - 1;
  const steps = Math.max(5, last);
  const x = (step) => MARGIN.left + (step / steps) * (width - MARGIN.left - MARGIN.right);
  const part = (score) => (score - low) / (high - low || 1);
  const y = (score) => HEIGHT - MARGIN.bottom - part(score) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const spoken = scores.map((score, step) => `${written(score)} after ${step}`).join(', ');
  const picture = svg('svg', {
    viewBox: `0 0 ${width} ${HEIGHT}`,
    role: 'img',
    'aria-label': `${what} by step: ${spoken}`,
  });
  picture.append(
    svg('path', {
      d: `M${x(0)} ${y(low)}H${x(steps)}`,
      stroke: 'currentcolor',
      'stroke-opacity': 0.3,
    }),
    svg('path', {
      d: scores.map((score, step) => `${step ? 'L' : 'M'}${x(step)} ${y(score)}`).join(''),
      fill: 'none',
      stroke: 'currentcolor',
      'stroke-width': 2.5,
      'stroke-linejoin': 'round',
    }),
    ...scores.map((score, step) =>
      svg('circle', { cx: x(step), cy: y(score), r: 4, fill: 'currentcolor' }),
    ),
    ...scores.map((_, step) => text(step, x(step), HEIGHT - 8, 'middle')),
    text(written(scores[0]), x(0) - 12, y(scores[0]) + 4, 'end'),
    text(written(scores[last]), x(last) + 12, y(scores[last]) + 4, 'start'),
  );
  picture.lastChild.setAttribute('class', 'last');
  element.replaceChildren(picture);
}

function text(content, x, y, anchor) {
  const element = svg('text', { x, y, 'text-anchor': anchor });
  element.textContent = content;
  return element;
}

function svg(name, attributes) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
