// A gateway: a slot for each part, REJECT until a valid PASS for it has come in time.
//
//   node gateway.mjs ENDPOINT STATION NAME [SECONDS]
//
// Prints the lines that the C gateway prints: welcome, verdict, duplicate, permit, purge, refused, bad.
import * as zmq from "zeromq";
import { FLAG, KIND, PASS, command, parse, said } from "./insp.mjs";

const [endpoint, station, client, seconds] = process.argv.slice(2);
if (!client) {
  console.error("usage: node gateway.mjs ENDPOINT STATION NAME [SECONDS]");
  process.exit(64);
}
const LEASE_MS = 300;
const socket = new zmq.Dealer({ receiveHighWaterMark: 1000, linger: 0, maxMessageSize: 65536, reconnectInterval: 100, sendTimeout: 0, immediate: true });
socket.connect(endpoint);

const slots = new Map(); // "lane/part" → {decided, passes}
let epoch = "";
let session = 0;
let last = 0n;
let heard = -Infinity;
let permitted = -Infinity;
let permit = 0;

const now = () => performance.now();
const queue = [];
let sending = false;

async function send(frames) {
  queue.push(frames); // one sender at a time: a socket of zeromq belongs to one
  if (sending) return;
  sending = true;
  while (queue.length) await socket.send(queue.shift()).catch(() => {}); // nobody there: the lease ends by itself
  sending = false;
}

function lose() {
  session = 0;
  permitted = -Infinity;
  for (const slot of slots.values()) slot.decided = true; // no PASS of another session may clear it
}

function verdict(header) {
  if (header.seq <= last) console.log(`duplicate ${header.seq}`);
  else {
    last = header.seq; // a real gateway keeps {epoch, seq} before it acknowledges
    const key = `${header.lane}/${header.partSeq}`;
    const slot = slots.get(key) ?? { decided: false, passes: false };
    slots.set(key, slot);
    if (slots.size > 4096) slots.delete(slots.keys().next().value);
    const inTime = header.ttlUs > 0 && !(header.flags & (FLAG.HISTORICAL | FLAG.LATE)) && now() - heard <= LEASE_MS;
    if (!slot.decided) [slot.decided, slot.passes] = [true, header.verdict === PASS && inTime];
    console.log(`verdict ${header.seq} ${header.lane} ${header.partSeq} ${slot.passes ? "PASS" : "REJECT"} ${header.reason}`);
  }
  send(command("ACK", { epoch, upto: last.toString() }));
}

function hear(name, head, payload) {
  if (name === "VERDICT" || name === "HB") {
    const header = parse(head, payload);
    if (!session || header.epoch !== epoch) throw new Error("epoch");
    if (header.kind !== (name === "HB" ? KIND.HB : KIND.VERDICT)) throw new Error("kind");
    if (name === "VERDICT") return verdict(header);
    heard = now();
    permitted = header.verdict === PASS ? heard : -Infinity;
    return;
  }
  const body = said(Buffer.from(name), head, payload);
  if (name === "WELCOME") {
    lose();
    if (body.epoch !== epoch) [slots.clear(), (last = 0n)];
    [epoch, session, heard] = [body.epoch, body.session, now()];
    console.log(`welcome ${epoch}`);
  } else if (name === "PURGE") {
    for (const [key, slot] of slots) {
      const [lane, part] = key.split("/").map(BigInt);
      if (Number(lane) === body.lane && part >= BigInt(body.from_part) && part <= BigInt(body.to_part)) slot.passes = false;
    }
    console.log("purge");
  } else if (name === "REFUSE" || name === "BYE") {
    console.log(`refused ${payload}`);
    lose();
  }
}

const hello = { proto: { majors: [1] }, client, station, profile: "permit", travel_min_ms: 600, scan_ms: 10, actuator_ms: 40, lease_ms: LEASE_MS, credit: 64, last: {} };
let beat = 0;
setInterval(() => {
  if (session && now() - heard > 10 * LEASE_MS) lose();
  if (now() >= beat) {
    beat = now() + (session ? 100 : 200);
    send(session ? command("HB", { mono_ns: String(process.hrtime.bigint()) }) : command("HELLO", hello));
  }
  const allowed = Number(session > 0 && now() - permitted <= LEASE_MS);
  if (allowed !== permit) console.log(`permit ${(permit = allowed)}`);
}, 10);
if (seconds) setTimeout(() => process.exit(0), 1000 * Number(seconds));

for await (const frames of socket) {
  try {
    if (frames.length !== 3) throw new Error("frames");
    hear(frames[0].toString(), frames[1], frames[2]);
  } catch (error) {
    console.log(`bad ${error.message}`);
  }
}
