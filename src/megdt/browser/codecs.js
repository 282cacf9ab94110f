// The codecs that a browser speaks, as src/megdt/codecs/seed.py and prompt.py have them.

const CLIP = 4;
const STEPS = 127;
const GAIN_SYMBOLS = 16;
const GAIN_RANGE = 4;
const GAIN_SPREAD = 0.2;

/** A prompt as its packet. */
export const encodePrompt = (prompt) => ({ payload: new TextEncoder().encode(prompt), values: 0 });

/** The text of a delivery. */
export const decodeText = (delivery) => new TextDecoder("utf-8", { fatal: true }).decode(delivery.payload);

/** A latent as a packet of one signed byte an element. */
export function encodeSeed(latent) {
  const steps = Int8Array.from(latent, (x) => Math.max(-STEPS, Math.min(STEPS, roundHalfEven((x * STEPS) / CLIP))));
  return { payload: new Uint8Array(steps.buffer), values: latent.length };
}

/** A latent of `count` elements, and the noise power that its decoder is to be told. */
export function decodeSeed(delivery, count, codec) {
  if (codec === "analog") return fromSymbols(delivery, count);
  if (delivery.payload.length !== count) {
    throw new Error(`the seed has ${delivery.payload.length} bytes, expected ${count}; both ends must follow the same plan`);
  }
  const steps = new Int8Array(delivery.payload.buffer, delivery.payload.byteOffset, count);
  return { latent: Float32Array.from(steps, (step) => Math.fround(step) * Math.fround(CLIP / STEPS)), noisePower: 0 };
}

// Real numbers in pairs, after symbols whose common phase tells the gain.
function fromSymbols(delivery, count) {
  const { symbols, noises, noisePower } = delivery;
  const pairs = Math.ceil(count / 2);
  if (symbols.length !== 2 * (GAIN_SYMBOLS + pairs)) {
    throw new Error(`${symbols.length / 2} symbols came, expected ${GAIN_SYMBOLS + pairs}; both ends must follow the same plan`);
  }
  const noiseOf = (index) => (noises ? noises[index] : noisePower);
  let real = GAIN_SPREAD ** -2;
  let imaginary = 0;
  for (let index = 0; index < GAIN_SYMBOLS; index++) {
    const weight = 2 / Math.max(noiseOf(index), 1e-12);
    real += weight * symbols[2 * index];
    imaginary += weight * symbols[2 * index + 1];
  }
  const gain = GAIN_RANGE ** (Math.atan2(imaginary, real) / Math.PI) * Math.SQRT2;
  let error = 0;
  let [least, most] = [Infinity, 0];
  for (let index = GAIN_SYMBOLS; index < GAIN_SYMBOLS + pairs; index++) {
    const noise = noiseOf(index);
    error += 1 - 1 / (1 + noise);
    [least, most] = [Math.min(least, noise), Math.max(most, noise)];
  }
  const mean = error / pairs;
  const level = most === least ? most : mean / (1 - mean);
  const latent = new Float32Array(count);
  for (let index = 0; index < count; index++) {
    const at = GAIN_SYMBOLS + (index >> 1);
    // Where noise differs from symbol to symbol, each is weighted by its share of signal.
    const share = most === least ? 1 : (1 + level) / (1 + noiseOf(at));
    latent[index] = symbols[2 * at + (index & 1)] * share * gain;
  }
  return { latent, noisePower: (gain ** 2 * level) / 2 };
}

function roundHalfEven(x) {
  const rounded = Math.round(x);
  return Math.abs(x % 1) === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}
