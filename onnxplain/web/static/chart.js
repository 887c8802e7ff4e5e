// A small line of probabilities, one per step.

import { percent } from './ranking.js';

const HEIGHT = 150;
const MARGIN = { top: 12, right: 62, bottom: 28, left: 62 }; // room for a percentage at each end

/** Draw it into `element`: `probabilities[0]` is before the first of one or more steps. */
export function showChart(element, name, probabilities) {
  const width = Math.max(280, element.clientWidth);
  const last = probabilities.length - 1;
  const steps = Math.max(5, last);
  const x = (step) => MARGIN.left + (step / steps) * (width - MARGIN.left - MARGIN.right);
  const y = (p) => HEIGHT - MARGIN.bottom - p * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const spoken = probabilities.map((p, step) => `${percent(p)} after ${step}`).join(', ');
  const picture = svg('svg', {
    viewBox: `0 0 ${width} ${HEIGHT}`,
    role: 'img',
    'aria-label': `Probability of ${name} by step: ${spoken}`,
  });
  picture.append(
    svg('path', {
      d: `M${x(0)} ${y(0)}H${x(steps)}`,
      stroke: 'currentcolor',
      'stroke-opacity': 0.3,
    }),
    svg('path', {
      d: probabilities.map((p, step) => `${step ? 'L' : 'M'}${x(step)} ${y(p)}`).join(''),
      fill: 'none',
      stroke: 'currentcolor',
      'stroke-width': 2.5,
      'stroke-linejoin': 'round',
    }),
    ...probabilities.map((p, step) =>
      svg('circle', { cx: x(step), cy: y(p), r: 4, fill: 'currentcolor' }),
    ),
    ...probabilities.map((_, step) => text(step, x(step), HEIGHT - 8, 'middle')),
    text(percent(probabilities[0]), x(0) - 12, y(probabilities[0]) + 4, 'end'),
    text(percent(probabilities[last]), x(last) + 12, y(probabilities[last]) + 4, 'start'),
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
