// The list of classes: the likeliest, or those that a search finds.

import { className, percent, ranking } from './ranking.js';

const LIKELIEST = 5;
const FOUND = 8;

/** Class indices whose name contains the query (or whose index it is), the likeliest first. */
export function search(model, probabilities, query) {
  const wanted = query.trim().toLowerCase();
  return ranking(probabilities).filter(
    (index) => String(index) === wanted || className(model, index).toLowerCase().includes(wanted),
  );
}

/** Which classes to list: what the search finds, or the likeliest and, below them, the chosen. */
export function listed(model, probabilities, query, chosen) {
  if (query.trim()) return search(model, probabilities, query).slice(0, FOUND);
  return [...new Set([...ranking(probabilities).slice(0, LIKELIEST), ...chosen])];
}

/** Show them in an <ol>; the focus stays on the class that has it. `chosen` are in their places. */
export function showClasses(list, model, probabilities, indices, chosen) {
  const focused = document.activeElement.dataset.class;
  list.replaceChildren(
    ...indices.map((index) => {
      const item = document.createElement('li');
      item.append(button(model, index, probabilities[index], chosen.indexOf(index)));
      return item;
    }),
  );
  if (focused) list.querySelector(`[data-class="${focused}"]`)?.focus();
}

function button(model, index, probability, place) {
  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'class';
  button.dataset.class = index;
  button.ariaPressed = place >= 0;
  if (place >= 0) button.dataset.place = place;
  button.append(
    span('name', className(model, index)),
    span('percent', percent(probability)),
    span('bar', ''),
  );
  button.style.setProperty('--probability', probability);
  return button;
}

function span(name, text) {
  const element = document.createElement('span');
  element.className = name;
  element.textContent = text;
  return element;
}
