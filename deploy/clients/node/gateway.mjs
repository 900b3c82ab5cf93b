// A gateway: a slot for each part, REJECT until a valid PASS for it has come in time.
//
//   node gateway.mjs ENDPOINT STATION NAME [LANE|- [STATE_FILE]]
//
// Prints the JSON lines that the C gateway prints, with at_ns and what: welcome, verdict, duplicate, actuated, permit, purge, refused, bad.
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import * as zmq from "zeromq";
import { FLAG, KIND, PASS, command, parse, said, tell } from "./insp.mjs";

const [endpoint, station, client, lane = "-", stateFile] = process.argv.slice(2);
if (!client) {
  console.error("usage: node gateway.mjs ENDPOINT STATION NAME [LANE|- [STATE_FILE]]");
  process.exit(64);
}
const LEASE_MS = 300;
const REDIAL_MS = 5000;
const ENDS = new Set(["E_STATE", "E_ACK", "E_PROTO", "E_AUTH", "E_ORDER"]); // what REFUSE says of one message ends no session

function dial() {
  const dealer = new zmq.Dealer({
    receiveHighWaterMark: 1000,
    linger: 0,
    maxMessageSize: 65536,
    reconnectInterval: 100,
    reconnectMaxInterval: 500,
    heartbeatInterval: 200,
    heartbeatTimeout: 600,
    sendTimeout: 0,
    immediate: true, // nothing for the next daemon
  });
  dealer.connect(endpoint);
  return dealer;
}

let socket = dial();
let dialled = performance.now();

const slots = new Map(); // "lane/part" → {decided, passes, done, due}
let epoch = "";
let session = 0;
let last = 0n;
let before = 0n; // the last verdict of the epoch before this session
const arrived = new Set(); // one that was lost on the way comes again after those that followed it
let permits = false; // what the last heartbeat said
let lease = -Infinity; // it counts from here: from when the heartbeat was sent that the daemon has answered
let welcomed = 0; // when this session's WELCOME came, ms
let beat = 0; // when the last heartbeat was sent, ms
let next = 0; // when the next one is, or HELLO
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

// The last verdict received, kept before it is acknowledged: the daemon's journal has a witness.
function remember() {
  if (!stateFile) return;
  writeFileSync(`${stateFile}.part`, JSON.stringify({ epoch, seq: last.toString() }));
  renameSync(`${stateFile}.part`, stateFile);
}

function remembered() {
  try {
    return { q: JSON.parse(readFileSync(stateFile, "utf8")) };
  } catch {
    return {};
  }
}

function lose() {
  session = 0;
  [permits, lease] = [false, -Infinity];
  for (const slot of slots.values()) slot.decided = true; // no PASS of another session may clear it
}

const leased = () => now() - lease <= LEASE_MS;

// A lease that has run out ends the session: what came later could be of any age, and only a new WELCOME begins anew.
function lookAtLease() {
  if (session && now() - Math.max(lease, welcomed) > LEASE_MS) [lose(), (next = 0)];
}

function heartbeat(header, { echo }) {
  permits = false;
  let from = now(); // a daemon of before does not answer
  if (echo !== undefined) {
    from = echo === null ? -Infinity : Number(BigInt(echo) / 1000000n);
    if (from > beat) throw new Error("echo");
    if (from < welcomed) from = -Infinity; // of another session
  }
  lease = Math.max(lease, from);
  permits = header.verdict === PASS;
}

function verdict(header) {
  if (header.seq <= before || arrived.has(header.seq)) tell("duplicate", { seq: header.seq });
  else {
    arrived.add(header.seq);
    if (arrived.size > 1024) arrived.delete(arrived.values().next().value);
    if (header.seq > last) [(last = header.seq), remember()];
    const key = `${header.lane}/${header.partSeq}`;
    const slot = slots.get(key) ?? { decided: false, passes: false, done: false, due: 0 };
    slots.set(key, slot);
    if (slots.size > 4096) slots.delete(slots.keys().next().value);
    const inTime = header.ttlUs > 0 && !(header.flags & (FLAG.HISTORICAL | FLAG.LATE)) && leased();
    if (!slot.decided) {
      slot.decided = true;
      slot.passes = header.verdict === PASS && inTime;
      slot.due = now() + header.ttlUs / 1000;
    }
    tell("verdict", {
      epoch,
      seq: header.seq,
      lane: header.lane,
      part: header.partSeq,
      verdict: header.verdict,
      reason: header.reason,
      flags: header.flags,
      ttl_us: header.ttlUs,
      passes: Number(slot.passes),
    });
  }
  send(command("ACK", { epoch, upto: last.toString(), seq: header.seq.toString() }));
}

// What the ejector would be told now, for every part whose time has come: it passes only if its slot says so.
function actuate() {
  for (const [key, slot] of slots) {
    if (!slot.decided || slot.done || now() < slot.due) continue;
    slot.done = true;
    const [at, part] = key.split("/");
    tell("actuated", { epoch, lane: Number(at), part, passes: Number(slot.passes) });
  }
}

function hear(name, head, payload) {
  lookAtLease();
  if (name === "VERDICT" || name === "HB") {
    const header = parse(head, payload);
    if (!session || header.epoch !== epoch) throw new Error("epoch");
    if (header.kind !== (name === "HB" ? KIND.HB : KIND.VERDICT)) throw new Error("kind");
    return name === "VERDICT" ? verdict(header) : heartbeat(header, JSON.parse(payload));
  }
  const body = said(Buffer.from(name), head, payload);
  if (name === "WELCOME") {
    lose();
    if (body.epoch !== epoch) [slots.clear(), (last = 0n)];
    [epoch, session, welcomed, next, before] = [body.epoch, body.session, Math.floor(now()), 0, BigInt(body.heads.q)];
    if (before > last) last = before;
    arrived.clear();
    tell("welcome", { epoch });
  } else if (name === "PURGE") {
    for (const [key, slot] of slots) {
      const [at, part] = key.split("/").map(BigInt);
      if (Number(at) === body.lane && part >= BigInt(body.from_part) && part <= BigInt(body.to_part)) slot.passes = false;
    }
    tell("purge", { lane: body.lane, from: body.from_part, to: body.to_part });
  } else if (name === "REFUSE" || name === "BYE") {
    tell("refused", { said: body });
    if (name === "BYE" || ENDS.has(body.code)) lose();
  }
}

const hello = () => ({
  proto: { majors: [1] },
  client,
  station,
  profile: "permit",
  travel_min_ms: 600,
  scan_ms: 10,
  actuator_ms: 40,
  lease_ms: LEASE_MS,
  credit: 64,
  last: remembered(),
  ...(lane === "-" ? {} : { lanes: [Number(lane)] }),
});
setInterval(() => {
  lookAtLease();
  if (session) dialled = now();
  if (now() - dialled > REDIAL_MS) [dialled, socket] = [now(), (socket.close(), dial())]; // after an error of the protocol libzmq never connects again
  if (now() >= next) {
    next = now() + (session ? 100 : 200);
    if (session) beat = Math.floor(now());
    send(session ? command("HB", { mono_ns: `${beat}000000` }) : command("HELLO", hello()));
  }
  const allowed = Number(session > 0 && permits && leased());
  if (allowed !== permit) tell("permit", { on: (permit = allowed) });
  actuate();
}, 10);

for (;;) {
  for await (const frames of socket) { // until it is closed, and then the next one
    try {
      if (frames.length !== 3) throw new Error("frames");
      hear(frames[0].toString(), frames[1], frames[2]);
    } catch (error) {
      tell("bad", { why: error.message });
    }
  }
}
