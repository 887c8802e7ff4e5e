// The worker's functions as this page's.

/**
 * Once started: load(model), open(file, preprocessing, pixels), explain(x, target, temperature, inputs),
 * read(x, output, count).
 */
export let engine;

/**
 * @param onProgress called with the bytes received so far and all that there are, as load goes on
 */
export function startEngine(onProgress) {
  const worker = new Worker('worker.js', { type: 'module' });
  const waiting = new Map();
  let calls = 0;

  worker.onmessage = ({ data }) => {
    if (data.progress) return onProgress(...data.progress);
    const { resolve, reject } = waiting.get(data.id);
    waiting.delete(data.id);
    return data.error === undefined ? resolve(data.result) : reject(new Error(data.error));
  };
  worker.onerror = () => {
    const error = new Error('The part of this page that runs the network did not start.');
    for (const { reject } of waiting.values()) reject(error);
  };

  const call =
    (name) =>
    (...args) =>
      new Promise((resolve, reject) => {
        waiting.set(++calls, { resolve, reject });
        worker.postMessage({ id: calls, name, args });
      });
  engine = Object.fromEntries(['load', 'open', 'explain', 'read'].map((name) => [name, call(name)]));
}
