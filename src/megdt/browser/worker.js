// The models of this UE, in a worker: the page stays live while they run.

import * as ort from "./vendor/ort.wasm.min.mjs";

const SESSIONS = new Map();
ort.env.wasm.wasmPaths = new URL("./vendor/", import.meta.url).href;
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;

// As the server's manifest says of the model.
function open(told, precision) {
  const graph = told.graphs[precision] ?? Object.values(told.graphs)[0];
  if (!SESSIONS.has(graph.file)) {
    const place = ({ file, sha256 }) => new URL(`../models/${file}?${sha256}`, self.location.href).href;
    SESSIONS.set(graph.file, ort.InferenceSession.create(place(graph), {
      executionProviders: ["wasm"],
      externalData: told.weights ? [{ path: told.weights.file, data: place(told.weights) }] : [],
    }));
  }
  return SESSIONS.get(graph.file);
}

const TASKS = {
  async load({ models, precision }) {
    await Promise.all(models.map((told) => open(told, precision)));
    return { threads: ort.env.wasm.numThreads };
  },

  // RGBA of a latent [4, height, width].
  async decode({ latent, height, width, noisePower, precision, model, exact }) {
    const session = await open(model, precision);
    const started = performance.now();
    const { output } = await session.run({
      latents: new ort.Tensor("float32", latent, [1, 4, height, width]),
      noise_power: new ort.Tensor("float32", Float32Array.of(noisePower), [1]),
    });
    const seconds = (performance.now() - started) / 1000;
    const area = 64 * height * width;
    const rgba = new Uint8ClampedArray(4 * area);
    for (let pixel = 0; pixel < area; pixel++) {
      for (let channel = 0; channel < 3; channel++) {
        rgba[4 * pixel + channel] = output.data[channel * area + pixel] * 127.5 + 127.5;
      }
      rgba[4 * pixel + 3] = 255;
    }
    return { rgba, seconds, values: exact ? output.data : null };
  },

  // The latent of RGBA, height and width multiples of 8.
  async encode({ rgba, height, width, precision, model }) {
    const session = await open(model, precision);
    const area = height * width;
    const pixels = new Float32Array(3 * area);
    for (let pixel = 0; pixel < area; pixel++) {
      for (let channel = 0; channel < 3; channel++) {
        pixels[channel * area + pixel] = rgba[4 * pixel + channel] / 127.5 - 1;
      }
    }
    const started = performance.now();
    const { output } = await session.run({ pictures: new ort.Tensor("float32", pixels, [1, 3, height, width]) });
    return { latent: output.data, seconds: (performance.now() - started) / 1000 };
  },
};

self.onmessage = async ({ data: { number, task, told } }) => {
  try {
    self.postMessage({ number, result: await TASKS[task](told) });
  } catch (error) {
    self.postMessage({ number, error: error.message });
  }
};
