// INSP/1 for Node: header, checksum, topics. Numbers of 64 bits are BigInt.

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let k = 0; k < 8; k++) byte = byte & 1 ? (byte >>> 1) ^ 0x82f63b78 : byte >>> 1;
  return byte >>> 0;
});

/** CRC-32C of some buffers, one after the other. */
export function crc32c(...buffers) {
  let crc = 0xffffffff;
  for (const buffer of buffers) for (const byte of buffer) crc = TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

export const PASS = 0x5a;
export const KIND = { VERDICT: 1, STATE: 2, ALARM: 3, HB: 4, EPOCH_CLOSE: 5 };
export const FLAG = { HISTORICAL: 1, RESEND: 2, DURABLE: 4, CHALLENGE: 8, LATE: 16 };

/** The header of a message, checked in the order length, magic, major, checksum; throws an Error that says why not. */
export function parse(head, payload) {
  if (head.length !== 64) throw new Error("short");
  if (head.toString("latin1", 0, 4) !== "INSP") throw new Error("magic");
  if (head[4] !== 1) throw new Error("major");
  if (crc32c(head.subarray(0, 60), payload) !== head.readUInt32BE(60)) throw new Error("crc");
  return {
    kind: head[6],
    flags: head[7],
    epoch: head.toString("hex", 8, 24).replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5"),
    seq: head.readBigUInt64BE(24),
    partSeq: head.readBigUInt64BE(32),
    at: head.readBigInt64BE(40),
    ttlUs: head.readUInt32BE(48),
    streamId: head.readUInt32BE(52),
    verdict: head[56],
    lane: head[57],
    reason: head.readUInt16BE(58),
  };
}

/** The frames of a message without header. */
export function command(name, body = {}) {
  const payload = Buffer.from(JSON.stringify(body));
  const check = Buffer.alloc(4);
  check.writeUInt32BE(crc32c(Buffer.from(name), payload));
  return [name, check, payload];
}

/** The JSON of a message without header; throws when its checksum is wrong. */
export function said(name, check, payload) {
  if (check.length && (check.length !== 4 || crc32c(name, payload) !== check.readUInt32BE(0))) throw new Error("crc");
  return JSON.parse(payload);
}

/** Says what has happened: a JSON object in a line, with `at_ns` (monotonic) and `what`; BigInt as text. */
export function tell(what, more = {}) {
  const line = { at_ns: Number(process.hrtime.bigint()), what, ...more };
  console.log(JSON.stringify(line, (_, value) => (typeof value === "bigint" ? value.toString() : value)));
}
