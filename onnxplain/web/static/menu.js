// The menu: the networks and the photographs that the site brings.

import { $ } from './state.js';

/**
 * Show what there is to choose.
 *
 * @param site model.json, which has {networks: [{name, description}], photographs: [address]}
 * @param onNetwork called with the address of a network's description
 * @param onPhotograph called with the address of a photograph
 */
export function showMenu({ networks, photographs }, onNetwork, onPhotograph) {
  $('networks').replaceChildren(
    ...networks.map(({ name, description }) => new Option(name, description)),
  );
  $('networks-label').hidden = networks.length < 2;
  $('photographs').replaceChildren(...photographs.map((at) => item(at, onPhotograph)));
  $('menu').hidden = networks.length < 2 && !photographs.length;
  $('networks').addEventListener('change', () => onNetwork($('networks').value));
}

function item(address, onPhotograph) {
  const [list, button, image] = ['li', 'button', 'img'].map((tag) => document.createElement(tag));
  button.type = 'button';
  button.addEventListener('click', () => onPhotograph(address));
  image.src = address;
  image.alt = nameOf(address).replace(/^\d+-|\.[^.]+$/g, '');
  button.append(image);
  list.append(button);
  return list;
}

/** The last part of an address. */
export function nameOf(address) {
  return address.split('/').at(-1);
}
