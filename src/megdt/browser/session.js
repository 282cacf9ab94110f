// The UE's end of a session; docs/protocol.md says what goes when.

import { decode, encode } from "./messagepack.js";

const CHUNK_BYTES = 2 ** 16;
const WINDOW_BYTES = 2 ** 22;
const ACK_BYTES = 2 ** 17;
const ACK_DELAY_MS = 50;
const PING_MS = 20000;
const GREETING_MS = 10000;
const SILENCE_MS = 60000;
const RETRY_MS = [100, 200, 500, 1000, 2000];
const LOST_CODES = new Set(["session", "resume"]);
const AGAIN_CODES = new Set(["busy", ...LOST_CODES]);

/** A frame as a message of its own: after its length. */
function alone(frame) {
  const message = new Uint8Array(4 + frame.length);
  new DataView(message.buffer).setUint32(0, frame.length);
  message.set(frame, 4);
  return message;
}

/** The frames of a message. */
function* split(message) {
  const view = new DataView(message.buffer);
  for (let at = 0; at < message.length;) {
    const begins = at + 4;
    at = begins + view.getUint32(at);
    if (at > message.length) throw new RangeError("it is cut off");
    yield message.subarray(begins, at);
  }
}

/** Why a session, or a request of it, cannot go on. */
export class SessionError extends Error {
  constructor(message, code, retryAfterS = null) {
    super(message);
    this.code = code;
    this.retryAfterS = retryAfterS;
  }
}

/**
 * Asks an edge server, and connects again where the network cuts it off.
 *
 * url: of the session. token: a function that gives one. bundle: checksum of the models here.
 * device: a device profile. onPhase: told "connecting", "open", "cut" or "closed".
 */
export class Session {
  constructor({ url, token, bundle, device, capabilities = [], onPhase = () => {} }) {
    Object.assign(this, { url, token, bundle, device, capabilities, onPhase });
    this.requests = new Map();
    this.connections = 0;
    this.failures = 0;
    this.over = false;
    this._forget();
  }

  _forget() {
    this.id = "";
    this.sent = this.received = this.features = this.arrivals = 0;
    this.kept = []; // [seq, frame], sent and not acknowledged
    this.again = [];
    this.queue = []; // of [message, body]
    this.current = null;
    this.spent = this.credit = 0;
    this.came = this.released = 0;
    this.announced = null;
    this.ackBytes = 0;
    this.ackTimer = null;
  }

  /** Connect, until closed. */
  open() {
    if (this.over) return;
    this.onPhase("connecting");
    this.greeted = false;
    const socket = new WebSocket(this.url, ["megdt.v1", `megdt.token.${this.token()}`]);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    socket.onopen = () => {
      this.connections += 1;
      this.heard = performance.now();
      this._write({
        type: "hello", bundle: this.bundle, device: this.device, capabilities: this.capabilities,
        session: this.id, received: this.received, credit: this.released + WINDOW_BYTES,
      });
      this.beat = setInterval(() => this._watch(), 1000);
    };
    socket.onmessage = (event) => {
      if (socket !== this.socket) return;
      try {
        this.heard = performance.now();
        for (const frame of split(new Uint8Array(event.data))) this._take(decode(frame), frame.length);
        this._send();
      } catch (error) {
        this._fail(error instanceof SessionError ? error : new SessionError(`a frame is no message: ${error.message}`, "message"));
      }
    };
    socket.onclose = () => this._lost(socket);
  }

  /** Stop; what runs is given up. */
  close() {
    this._fail(new SessionError("the session was closed here", "closed"));
  }

  /**
   * Have something made.
   *
   * tables: of a scenario. part: async function ({send, feature, signal}) that runs this side and
   * gives the lines of its ledger. Resolves to the server's result.
   */
  async ask(tables, part, { deadlineS = 60, key = randomName() } = {}) {
    const until = performance.now() + 1000 * deadlineS;
    for (;;) {
      const leftS = (until - performance.now()) / 1000;
      try {
        return await this._ask(tables, part, leftS, key);
      } catch (error) {
        const waitS = error.retryAfterS ?? 0.1;
        if (!AGAIN_CODES.has(error.code) || waitS >= leftS) throw error;
        await new Promise((resolve) => setTimeout(resolve, 1000 * waitS));
      }
    }
  }

  async _ask(tables, part, deadlineS, key) {
    if (this.over) throw new SessionError("the session is over; begin another", "closed");
    const request = { key, arrived: new Map(), waiting: new Map() };
    const result = new Promise((resolve, reject) => Object.assign(request, { resolve, reject }));
    result.catch(() => {});
    this.requests.set(key, request);
    this._put({ type: "request", key, deadline_s: deadlineS, tables });
    const timer = setTimeout(() => this._end(key, new SessionError("it was not done by its deadline", "deadline")), 1000 * deadlineS);
    const side = {
      send: (source, kind, packet) => this._put({ type: "feature", key, source, to_side: "ES", kind, payload_bytes: packet.payload.length, values: packet.values }, packet.payload),
      feature: (source) => this._arrival(request, source),
    };
    try {
      const computations = await Promise.race([part(side), result.then(() => [])]);
      this._put({ type: "lines", key, ledger: { crossings: [], computations } });
      return await result;
    } catch (error) {
      if (this.requests.has(key)) this.cancel(key);
      throw error;
    } finally {
      clearTimeout(timer);
      this.requests.delete(key);
    }
  }

  /** Want a request no longer. */
  cancel(key) {
    this.queue = this.queue.filter(([message]) => message.key !== key);
    this._put({ type: "cancel", key });
    this._end(key, new SessionError("it was cancelled", "cancelled"));
  }

  _arrival(request, source) {
    if (request.arrived.has(source)) return Promise.resolve(request.arrived.get(source));
    return new Promise((resolve) => request.waiting.set(source, resolve));
  }

  _end(key, outcome) {
    const request = this.requests.get(key);
    if (!request) return;
    this.requests.delete(key);
    if (outcome instanceof Error) request.reject(outcome);
    else request.resolve(outcome);
  }

  _put(message, body = null) {
    this.queue.push([message, body]);
    this._send();
  }

  _write(message) {
    this.socket.send(alone(encode(message)));
  }

  _number(message) {
    const frame = encode({ ...message, seq: ++this.sent });
    this.kept.push([this.sent, frame]);
    return frame;
  }

  _send() {
    const socket = this.socket;
    while (this.greeted && socket.readyState === WebSocket.OPEN && socket.bufferedAmount < 2 ** 20) {
      if (this.again.length) socket.send(alone(this.again.shift()));
      else if (this.current) {
        const { number, body, offset } = this.current;
        const data = body.subarray(offset, offset + CHUNK_BYTES);
        if (this.spent + data.length > this.credit) return;
        this.spent += data.length;
        this.current.offset += data.length;
        if (this.current.offset === body.length) this.current = null;
        socket.send(alone(this._number({ type: "chunk", number, offset, data })));
      } else if (this.queue.length) {
        let [message, body] = this.queue.shift();
        if (message.type === "feature") {
          message = { ...message, number: ++this.features };
          if (body.length) this.current = { number: this.features, body, offset: 0 };
        }
        socket.send(alone(this._number(message)));
      } else return;
    }
  }

  _take(message, size) {
    if (message.type === "welcome") return this._welcome(message);
    if (message.type === "error") throw new SessionError(message.message, message.code, message.retry_after_s);
    if (!this.greeted) throw new SessionError(`a ${message.type} came before a welcome`, "message");
    if (message.type === "ack") return this._acknowledged(message);
    if (message.type === "ping") return this._write({ type: "pong", number: message.number });
    if (message.type === "pong") return undefined;
    if (message.seq <= this.received) return undefined;
    if (message.seq !== this.received + 1) throw new SessionError(`message ${message.seq} came after ${this.received}`, "message");
    this.received = message.seq;
    this._want(size, message.type === "bye");
    switch (message.type) {
      case "feature": return this._announce(message);
      case "chunk": return this._chunk(message);
      case "result": return this._end(message.key, message);
      case "failure": return this._end(message.key, new SessionError(message.message, message.code, message.retry_after_s));
      case "bye": return this._put({ type: "bye" });
      default: return undefined;
    }
  }

  _welcome(message) {
    if (message.bundle !== this.bundle) {
      throw new SessionError(`the ES has the bundle ${message.bundle}, this page has ${this.bundle}; load it again`, "bundle");
    }
    this.id = message.session;
    this.greeted = true;
    this.failures = 0;
    this._acknowledged(message);
    this.again = this.kept.map(([, frame]) => frame);
    this.onPhase("open");
  }

  _acknowledged({ received, credit }) {
    while (this.kept.length && this.kept[0][0] <= received) this.kept.shift();
    this.credit = Math.max(this.credit, credit);
  }

  _announce(told) {
    const feature = { number: 1, ...told }; // what has its default is left out
    if (feature.number !== this.arrivals + 1) throw new SessionError(`feature ${feature.number} came after ${this.arrivals}`, "message");
    this.arrivals = feature.number;
    const symbols = feature.symbols ?? 0;
    const each = feature.dtype === "complex64" ? 8 : 4;
    const size = (feature.payload_bytes ?? 0) + symbols * (each + (feature.noises ? 4 : 0));
    if (size > WINDOW_BYTES) throw new SessionError(`a feature of ${size} bytes is too large`, "message");
    this.announced = { feature, body: new Uint8Array(size), came: 0 };
    if (!size) this._complete();
  }

  _chunk({ number, offset, data }) {
    const under = this.announced;
    if (!under || number !== under.feature.number || offset !== under.came || under.came + data.length > under.body.length) {
      throw new SessionError(`a chunk at ${offset} of feature ${number} is not the next`, "message");
    }
    under.body.set(data, offset);
    under.came += data.length;
    this.came += data.length;
    if (under.came === under.body.length) this._complete();
  }

  _complete() {
    const { feature, body } = this.announced;
    this.announced = null;
    this.released = this.came;
    const request = this.requests.get(feature.key);
    if (!request) return;
    const delivery = unpack(feature, body);
    const waiting = request.waiting.get(feature.source);
    if (waiting) waiting(delivery);
    else request.arrived.set(feature.source, delivery);
  }

  _want(size, now) {
    this.ackBytes += size;
    if (now || this.ackBytes >= ACK_BYTES) this._acknowledge();
    else if (this.ackTimer === null) this.ackTimer = setTimeout(() => this._acknowledge(), ACK_DELAY_MS);
  }

  _acknowledge() {
    clearTimeout(this.ackTimer);
    this.ackTimer = null;
    this.ackBytes = 0;
    if (this.greeted && this.socket.readyState === WebSocket.OPEN) {
      this._write({ type: "ack", received: this.received, credit: this.released + WINDOW_BYTES });
    }
  }

  _watch() {
    const quiet = performance.now() - this.heard;
    if (quiet > (this.greeted ? SILENCE_MS : GREETING_MS)) this.socket.close();
    else if (quiet > PING_MS && this.greeted) this._write({ type: "ping", number: Math.floor(quiet) });
    this._send();
  }

  _lost(socket) {
    if (socket !== this.socket || this.over) return;
    clearInterval(this.beat);
    this.greeted = false;
    this.onPhase("cut");
    const wait = RETRY_MS[Math.min(this.failures++, RETRY_MS.length - 1)];
    setTimeout(() => this.open(), wait);
  }

  _fail(error) {
    if (LOST_CODES.has(error.code) && !this.over) {
      // The server has forgotten this session: begin another; who asked asks again under the same key.
      this._forget();
      for (const key of [...this.requests.keys()]) this._end(key, error);
      this.socket.close();
      return;
    }
    this.over = true;
    clearInterval(this.beat);
    for (const key of [...this.requests.keys()]) this._end(key, error);
    this.socket?.close();
    this.onPhase("closed", error);
  }
}

function unpack(feature, body) {
  const at = feature.payload_bytes ?? 0;
  const count = feature.symbols ?? 0;
  const floats = (offset, size) => new Float32Array(body.slice(offset, offset + 4 * size).buffer);
  const wide = feature.dtype === "complex64" ? 2 : 1;
  return {
    outcome: feature.outcome ?? "delivered",
    payload: body.slice(0, at),
    symbols: count ? floats(at, wide * count) : null,
    noises: feature.noises ? floats(at + 4 * wide * count, count) : null,
    noisePower: feature.noise_power ?? 0,
  };
}

function randomName() {
  return Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
