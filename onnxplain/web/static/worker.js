// What takes long, off the page's thread: reading photographs and running the explain graph.

import { frame, shapeOf } from './frame.js';
import { crop, normalise } from './preprocess.js';

const AGREEMENT = 0.999; // the least cosine between WebGPU's pullback and WASM's

// Two builds of ONNX Runtime: the one with WebGPU is twice as large, so it is fetched only to be used.
const BUILDS = {
  webgpu: { script: 'ort.webgpu.bundle.min.mjs', wasm: 'ort-wasm-simd-threaded.asyncify.wasm' },
  wasm: { script: 'ort.wasm.bundle.min.mjs', wasm: 'ort-wasm-simd-threaded.wasm' },
};

let ort, model, session;
let running = Promise.resolve(); // a session runs one thing at a time

/** Fetch and open a graph, in place of another. Returns where it will run, for people. */
function load(description) {
  return inTurn(() => exchange(description));
}

async function exchange(description) {
  await session?.release();
  [model, session] = [description, null];
  const device = (await hasGpu()) ? 'webgpu' : 'wasm';
  const build = BUILDS[device];
  const report = counter(model.bytes[model.graph] + (ort ? 0 : model.bytes[build.wasm]));
  const [graph] = await Promise.all([
    download(model.graph, report),
    ort ?? startRuntime(build, report),
  ]);
  session = await start(graph, 'wasm');
  if (device === 'webgpu' && (await moveToGpu(graph))) return 'WebGPU';
  const threads = ort.env.wasm.numThreads;
  return `WebAssembly, ${threads} thread${threads > 1 ? 's' : ''}`;
}

async function startRuntime(build, report) {
  const wasm = await download(`ort/${build.wasm}`, report);
  const runtime = await import(`./ort/${build.script}`);
  runtime.env.wasm.wasmBinary = wasm;
  runtime.env.wasm.numThreads = self.crossOriginIsolated
    ? Math.min(4, navigator.hardwareConcurrency)
    : 1;
  ort = runtime;
}

function start(graph, provider) {
  const errors = 3; // ONNX Runtime's warnings are about the graph, not for who looks at photographs
  return ort.InferenceSession.create(graph, {
    executionProviders: [provider],
    logSeverityLevel: errors,
  });
}

async function hasGpu() {
  try {
    const adapter = await navigator.gpu?.requestAdapter();
    return Boolean(adapter) && !adapter.info?.isFallbackAdapter; // that one is software: slower
  } catch {
    return false;
  }
}

/** Drivers differ, and a wrong picture looks like any other: use the GPU only if it agrees. */
async function moveToGpu(graph) {
  const onCpu = session;
  try {
    const probe = probing();
    const target = model.objective?.inputs.target?.default ?? -1;
    const expected = await run(probe, target, model.parameters.temperature, {});
    session = await start(graph, 'webgpu');
    const found = await run(probe, target, model.parameters.temperature, {});
    if (cosine(expected.pullback, found.pullback) >= AGREEMENT) {
      await onCpu.release();
      return true;
    }
  } catch (error) {
    console.warn('WebGPU cannot run this graph:', error);
  }
  session = onCpu;
  return false;
}

/** Something to look at. */
function probing() {
  const size = model.preprocessing.mean.length * pixels();
  if (!model.pixels) return Float32Array.from({ length: size }, (_, i) => Math.sin(i * i));
  const { width, height } = model.preprocessing;
  const rows = (top, count) =>
    Uint8Array.from({ length: 4 * width * count }, (_, i) => 128 + 127 * Math.sin(i * i));
  return frame({ width, height, rows }, model.pixels);
}

function cosine(a, b) {
  const dot = (x, y) => x.reduce((sum, value, i) => sum + value * y[i], 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

function counter(total) {
  let received = 0;
  return (bytes) => postMessage({ progress: [(received += bytes), total] });
}

async function download(address, report) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(`The server has no ${address} (${response.status}).`);
  const counted = new TransformStream({
    transform(chunk, controller) {
      report(chunk.length);
      controller.enqueue(chunk);
    },
  });
  return new Response(response.body.pipeThrough(counted)).arrayBuffer();
}

/**
 * What the network sees of an image file: {photograph, RGB pixels; x, the network's input, or of a
 * graph that takes pixels all of the file's; size, the file's {width, height}}.
 */
async function open(file, pre, pixels) {
  const bitmap = await decode(file);
  const { width, height } = bitmap;
  const rows = (top, count) => {
    const canvas = new OffscreenCanvas(width, count);
    const context = canvas.getContext('2d', { willReadFrequently: true });
    context.fillStyle = 'white'; // what is transparent is seen on white
    context.fillRect(0, 0, width, count);
    context.drawImage(bitmap, 0, -top);
    return context.getImageData(0, 0, width, count).data;
  };
  const photograph = crop({ width, height, rows }, pre);
  const x = pixels ? frame({ width, height, rows }, pixels) : normalise(photograph, pre);
  bitmap.close();
  return { photograph, x, size: { width, height } };
}

async function decode(file) {
  try {
    // The file's own pixel values, as Pillow reads them: turned as the camera was held, but not
    // converted from its colour profile.
    return await createImageBitmap(file, {
      imageOrientation: 'from-image',
      colorSpaceConversion: 'none',
    });
  } catch {
    throw new Error(`“${file.name}” is not an image that this browser can read.`);
  }
}

/**
 * Run the graph on one input, [C,H,W] or a frame: {logits, pullback [C,H,W], seconds}; instead of logits what an
 * objective tells, {score, index, box}, null where it does not.
 */
function explain(x, target, temperature, inputs) {
  return inTurn(() => run(x, target, temperature, inputs));
}

/** The first numbers of another output. */
function read(x, output, count) {
  return inTurn(async () => {
    const feeds = feedsOf(x, 0, model.parameters.temperature, {});
    return (await session.run(feeds, [output]))[output].data.slice(0, count);
  });
}

function inTurn(work) {
  const result = running.then(work);
  running = result.catch(() => {});
  return result;
}

async function run(x, target, temperature, inputs) {
  const { mean, layout } = model.preprocessing;
  const feeds = feedsOf(x, target, temperature, inputs);
  const told = model.objective ? ['objective', ...model.objective.told] : ['logits'];
  const began = performance.now();
  const outputs = await session.run(feeds, [...told, 'pullback']);
  const seconds = (performance.now() - began) / 1000;
  const gradient = outputs.pullback.data.slice(0, mean.length * pixels());
  const pullback = layout === 'NHWC' ? transpose(gradient, pixels(), mean.length) : gradient;
  return { ...answerOf(outputs, target), pullback, seconds };
}

function answerOf({ logits, objective, explained_class, explained_box }, target) {
  if (!model.objective) return { logits: logits.data.slice(0, model.classes) };
  const own = 'target' in model.objective.inputs ? target : null;
  return {
    score: objective.data[0],
    index: explained_class ? Number(explained_class.data[0]) : own,
    box: explained_box ? Array.from(explained_box.data.slice(0, 4)) : null,
  };
}

/** What the graph takes. */
function feedsOf(x, target, temperature, given) {
  const count = model.batch ?? 1; // a graph of a fixed batch gets the same image in every place
  const feeds = { image: model.pixels ? frameTensor(x, count) : imageTensor(x, count) };
  const { target: takesTarget, ...declared } = model.objective?.inputs ?? { target: true };
  if (takesTarget) {
    const targets = new BigInt64Array(count).fill(BigInt(target));
    const axes = model.multi_target ? [count, 1] : [count];
    feeds.target = new ort.Tensor('int64', targets, axes);
  }
  for (const [name, one] of Object.entries(declared)) {
    feeds[name] = inputTensor(one, given[name], count);
  }
  for (const name of model.live) {
    const value = name === 'temperature' ? temperature : model.parameters[name];
    feeds[name] = new ort.Tensor('float32', [value], []);
  }
  return feeds;
}

function imageTensor(x, count) {
  const { height, width, mean, layout } = model.preprocessing;
  const last = layout === 'NHWC';
  const one = last ? transpose(x, mean.length, pixels()) : x;
  const size = last ? [height, width, mean.length] : [mean.length, height, width];
  return new ort.Tensor('float32', repeated(one, count), [count, ...size]);
}

function frameTensor(x, count) {
  return new ort.Tensor('uint8', repeated(x.bytes, count), shapeOf(x, model.pixels, count));
}

function repeated(values, count) {
  if (count === 1) return values;
  const all = new values.constructor(count * values.length);
  for (let n = 0; n < count; n++) all.set(values, n * values.length);
  return all;
}

/** What an objective takes, the same in every place; something where it must be given and is not. */
function inputTensor({ kind, shape, default: value }, given, count) {
  const size = shape.reduce((a, b) => a * b, 1);
  const at = (i) => given?.[i % size] ?? value ?? Math.sin(1 + (i % size));
  const axes = [count, ...shape];
  if (kind === 'index') {
    const indices = BigInt64Array.from({ length: count * size }, (_, i) => BigInt(at(i)));
    return new ort.Tensor('int64', indices, axes);
  }
  return new ort.Tensor('float32', Float32Array.from({ length: count * size }, (_, i) => at(i)), axes);
}

function pixels() {
  return model.preprocessing.height * model.preprocessing.width;
}

/** A matrix of `rows` rows, flat, turned. */
function transpose(values, rows, columns) {
  const out = new Float32Array(values.length);
  values.forEach((value, i) => (out[(i % columns) * rows + Math.floor(i / columns)] = value));
  return out;
}

const functions = { load, open, explain, read };

self.onmessage = async ({ data: { id, name, args } }) => {
  try {
    postMessage({ id, result: await functions[name](...args) });
  } catch (error) {
    postMessage({ id, error: error.message ?? String(error) });
  }
};
