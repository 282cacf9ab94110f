// MessagePack, as far as docs/protocol.md goes: no extension types, integers within 2**53 - 1.

const utf8 = new TextEncoder();
const text = new TextDecoder("utf-8", { fatal: true });

/** A value as a frame. Whole numbers become integers, which stand for floats too. */
export function encode(value) {
  let bytes = new Uint8Array(256);
  let view = new DataView(bytes.buffer);
  let at = 0;

  function room(count) {
    if (at + count <= bytes.length) return;
    const larger = new Uint8Array(Math.max(2 * bytes.length, at + count));
    larger.set(bytes);
    bytes = larger;
    view = new DataView(bytes.buffer);
  }
  function put(method, size, number) {
    room(size);
    view[method](at, number);
    at += size;
  }
  function head(size, short, codes) {
    if (short !== null && size < short[1]) put("setUint8", 1, short[0] | size);
    else if (size < 2 ** 8 && codes[0] !== null) { put("setUint8", 1, codes[0]); put("setUint8", 1, size); }
    else if (size < 2 ** 16) { put("setUint8", 1, codes[1]); put("setUint16", 2, size); }
    else { put("setUint8", 1, codes[2]); put("setUint32", 4, size); }
  }
  function raw(data) {
    room(data.length);
    bytes.set(data, at);
    at += data.length;
  }
  function integer(number) {
    if (number >= 0) {
      if (number < 2 ** 7) put("setUint8", 1, number);
      else if (number < 2 ** 8) { put("setUint8", 1, 0xcc); put("setUint8", 1, number); }
      else if (number < 2 ** 16) { put("setUint8", 1, 0xcd); put("setUint16", 2, number); }
      else if (number < 2 ** 32) { put("setUint8", 1, 0xce); put("setUint32", 4, number); }
      else { put("setUint8", 1, 0xcf); put("setBigUint64", 8, BigInt(number)); }
    } else if (number >= -32) put("setInt8", 1, number);
    else if (number >= -(2 ** 7)) { put("setUint8", 1, 0xd0); put("setInt8", 1, number); }
    else if (number >= -(2 ** 15)) { put("setUint8", 1, 0xd1); put("setInt16", 2, number); }
    else if (number >= -(2 ** 31)) { put("setUint8", 1, 0xd2); put("setInt32", 4, number); }
    else { put("setUint8", 1, 0xd3); put("setBigInt64", 8, BigInt(number)); }
  }
  function write(item) {
    if (item === null || item === undefined) put("setUint8", 1, 0xc0);
    else if (item === true || item === false) put("setUint8", 1, item ? 0xc3 : 0xc2);
    else if (typeof item === "number") {
      if (Number.isSafeInteger(item)) integer(item);
      else if (Number.isFinite(item)) { put("setUint8", 1, 0xcb); put("setFloat64", 8, item); }
      else throw new TypeError(`${item} is no number that a frame carries`);
    } else if (typeof item === "string") {
      const data = utf8.encode(item);
      head(data.length, [0xa0, 32], [0xd9, 0xda, 0xdb]);
      raw(data);
    } else if (item instanceof Uint8Array) {
      head(item.length, null, [0xc4, 0xc5, 0xc6]);
      raw(item);
    } else if (Array.isArray(item)) {
      head(item.length, [0x90, 16], [null, 0xdc, 0xdd]);
      item.forEach(write);
    } else {
      const entries = Object.entries(item).filter(([, held]) => held !== undefined);
      head(entries.length, [0x80, 16], [null, 0xde, 0xdf]);
      for (const [name, held] of entries) { write(name); write(held); }
    }
  }
  write(value);
  return bytes.slice(0, at);
}

/** The value of a frame; bytes are views of it. Throws where it is none. */
export function decode(frame) {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  let at = 0;

  function take(method, size) {
    const number = view[method](at); // throws beyond the end
    at += size;
    return number;
  }
  function data(size) {
    if (at + size > frame.length) throw new RangeError(`${size} bytes are claimed, ${frame.length - at} are there`);
    at += size;
    return frame.subarray(at - size, at);
  }
  const string = (size) => text.decode(data(size));
  function big(method) {
    const number = Number(take(method, 8));
    if (!Number.isSafeInteger(number)) throw new RangeError("an integer is beyond 2**53 - 1");
    return number;
  }
  function list(size, depth) {
    if (size > frame.length - at) throw new RangeError(`a list claims ${size} values`);
    return Array.from({ length: size }, () => read(depth + 1));
  }
  function map(size, depth) {
    if (size > frame.length - at) throw new RangeError(`a map claims ${size} values`);
    const found = {};
    for (let index = 0; index < size; index++) {
      const name = read(depth + 1);
      if (typeof name !== "string" || name in found || name === "__proto__") throw new TypeError("a map's keys are different texts");
      found[name] = read(depth + 1);
    }
    return found;
  }
  function read(depth) {
    if (depth > 16) throw new RangeError("maps and lists are too deep");
    const code = take("getUint8", 1);
    if (code < 0x80) return code;
    if (code < 0x90) return map(code & 15, depth);
    if (code < 0xa0) return list(code & 15, depth);
    if (code < 0xc0) return string(code & 31);
    if (code >= 0xe0) return code - 256;
    switch (code) {
      case 0xc0: return null;
      case 0xc2: return false;
      case 0xc3: return true;
      case 0xc4: return data(take("getUint8", 1));
      case 0xc5: return data(take("getUint16", 2));
      case 0xc6: return data(take("getUint32", 4));
      case 0xca: return take("getFloat32", 4);
      case 0xcb: return take("getFloat64", 8);
      case 0xcc: return take("getUint8", 1);
      case 0xcd: return take("getUint16", 2);
      case 0xce: return take("getUint32", 4);
      case 0xcf: return big("getBigUint64");
      case 0xd0: return take("getInt8", 1);
      case 0xd1: return take("getInt16", 2);
      case 0xd2: return take("getInt32", 4);
      case 0xd3: return big("getBigInt64");
      case 0xd9: return string(take("getUint8", 1));
      case 0xda: return string(take("getUint16", 2));
      case 0xdb: return string(take("getUint32", 4));
      case 0xdc: return list(take("getUint16", 2), depth);
      case 0xdd: return list(take("getUint32", 4), depth);
      case 0xde: return map(take("getUint16", 2), depth);
      case 0xdf: return map(take("getUint32", 4), depth);
      default: throw new TypeError(`byte ${code} begins no value that a frame carries`);
    }
  }
  const value = read(0);
  if (at !== frame.length) throw new RangeError(`${frame.length - at} bytes follow the message`);
  return value;
}
