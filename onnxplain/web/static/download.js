// The pictures on show, side by side with their captions, as one PNG.

import { told } from './ranking.js';
import { $, state } from './state.js';

const LEAST = 448; // pixels of a picture's shorter side
const GAP = 24;
const TEXT = 22;
const FONT = 'system-ui, sans-serif';

export function download() {
  const { model, photograph, slots, temperature } = state;
  if (!slots[0].explanation) return; // not explained yet
  const drawn = [...$('stage').querySelectorAll('figure:has(canvas)')];
  const figures = drawn.filter((figure) => figure.offsetParent); // null where it is hidden
  const footnote = [`${model.source}, ${model.method} pullback`];
  if ('temperature' in model.parameters) footnote.push(`T = ${temperature.toPrecision(2)}`);
  const names = slots.map((slot) => told(state, slot).name);
  const stem = [photograph.name.replace(/\.\w+$/, ''), ...names].join('-').replace(/\s+/g, '-');
  compose(figures, footnote.join(', ')).toBlob((blob) => {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(blob);
    link.download = `${stem}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // after the browser has read it
  });
}

/** Figures (a canvas, .title and perhaps .percent each) in a row, and a line below them. */
function compose(figures, footnote) {
  const first = figures[0].querySelector('canvas');
  const scale = Math.ceil(LEAST / Math.min(first.width, first.height));
  const [width, height] = [scale * first.width, scale * first.height];
  const page = document.createElement('canvas');
  page.width = figures.length * (width + GAP) + GAP;
  page.height = height + 3 * GAP + 3 * TEXT;
  const context = page.getContext('2d');
  context.fillStyle = '#ffffff';
  context.fillRect(0, 0, page.width, page.height);
  context.imageSmoothingQuality = 'high';
  context.textBaseline = 'top';
  figures.forEach((figure, i) => {
    const left = GAP + i * (width + GAP);
    context.drawImage(figure.querySelector('canvas'), left, GAP, width, height);
    const caption = [...figure.querySelectorAll('.title, .percent')].map(
      (part) => part.textContent,
    );
    write(context, caption.join('  '), left, height + 1.5 * GAP, width, '#1a1a1a');
  });
  const below = height + 1.5 * GAP + 2 * TEXT;
  write(context, footnote, GAP, below, page.width - 2 * GAP, '#666666');
  return page;
}

function write(context, text, left, top, width, colour) {
  context.font = `${TEXT}px ${FONT}`;
  context.fillStyle = colour;
  context.fillText(text, left, top, width); // narrower letters where it would not fit
}
