// A subscriber: every event of a stream in order, each once; what was lost is asked for at the replay socket.
//
//   node scada.mjs EVENTS_ENDPOINT REPLAY_ENDPOINT [q|r|a]
//
// Prints a JSON object in a line for each event and for each hole: at_ns, what (event, hole, stale, bad), epoch, and what there is to say of it.
// A hole's `to` is null where nobody knows how many events were lost: the rest of that epoch, and whatever there was before the next event.
import * as zmq from "zeromq";
import { FLAG, KIND, command, parse, said, tell } from "./insp.mjs";

const [events, replay, stream = "q"] = process.argv.slice(2);
if (!replay) {
  console.error("usage: node scada.mjs EVENTS_ENDPOINT REPLAY_ENDPOINT [q|r|a]");
  process.exit(64);
}
const REDIAL_MS = 6000;
let sub, ask, dialled;

// Anew after a silence: after an error of the protocol, as a handshake under CURVE is, libzmq never connects again.
function dial() {
  sub?.close();
  ask?.close();
  sub = new zmq.Subscriber({ receiveHighWaterMark: 10000, linger: 0, maxMessageSize: 65536, reconnectInterval: 100 });
  ask = new zmq.Dealer({ receiveHighWaterMark: 10000, linger: 0, maxMessageSize: 65536, sendTimeout: 0 });
  sub.connect(events);
  ask.connect(replay);
  sub.subscribe("insp1/");
  dialled = performance.now();
}

// One sender at a time; what cannot be sent now is asked again.
let sent = Promise.resolve();
const say = (name, body) => (sent = sent.then(() => ask.send(command(name, body))).catch(() => {}));

dial();

let epoch = null;
let last = 0n;
let ended = false; // the last event of the epoch was there
const EVER = 1n << 62n; // to the end of an epoch, wherever that is
const LARGEST_RANGE = 100_000_000n;
const SILENT_MS = 3000;
let filling = null; // {id, to, next (the epoch to go on with), gone (nothing of it is kept), heard}
let held = [];
let asked = 0;
let heard = performance.now();
let stale = false;

function give(header, payload) {
  last = header.seq;
  ended = header.kind === KIND.EPOCH_CLOSE;
  const body = JSON.parse(payload);
  const historical = Boolean(header.flags & FLAG.HISTORICAL);
  tell("event", { epoch, stream, seq: header.seq, lane: header.lane, part: header.partSeq, verdict: header.verdict, hash: body.hash, historical });
}

async function fill(to, next = null) {
  filling = { id: ++asked, to, next, heard: performance.now() };
  await new Promise((resolve) => setTimeout(resolve, 50)); // TCP does not reorder: what is missing after 50 ms was dropped
  const most = to < last + LARGEST_RANGE ? to : last + LARGEST_RANGE;
  if (filling) say("REPLAY", { id: filling.id, stream, epoch, from: (last + 1n).toString(), to: most.toString() });
}

// What waited while a gap was filled; with a new epoch if the old one is now at its end.
function goOn(next) {
  const waiting = held;
  [filling, held] = [null, []];
  if (next) [epoch, last, ended] = [next, 0n, false];
  for (const [header, content] of waiting) take(header, content);
}

function hole(from, to) {
  tell("hole", { epoch, stream, from, to });
}

function take(header, payload) {
  if (filling) return void held.push([header, payload]);
  if (epoch === null) [epoch, last] = [header.epoch, header.seq - 1n];
  if (header.epoch !== epoch) {
    held.push([header, payload]);
    return void fill(EVER, header.epoch); // first what is left of the epoch before
  }
  if (header.seq <= last) return;
  if (header.seq > last + 1n) {
    held.push([header, payload]);
    return void fill(header.seq - 1n);
  }
  give(header, payload);
}

async function live() {
  for (;;) for await (const frames of sub) { // until it is closed, and then the next one
    try {
      if (frames.length !== 3) throw new Error("frames");
      const [topic, head, payload] = frames;
      const header = parse(head, payload);
      heard = performance.now();
      const name = topic.toString().split("/")[4];
      if (name === "hb" && header.kind === KIND.HB) {
        const at = BigInt(JSON.parse(payload).head[stream]);
        if (epoch === null) [epoch, last] = [header.epoch, at]; // from here on nothing is lost in silence
        else if (header.epoch !== epoch && !filling) fill(EVER, header.epoch);
        else if (header.epoch === epoch && at > last && !filling) fill(at);
      } else if (name === stream) take(header, payload);
    } catch (error) {
      tell("bad", { why: error.message });
    }
  }
}

async function told() {
  for (;;) for await (const [name, head, payload] of ask) {
    try {
      if (filling) filling.heard = performance.now();
      if (name.toString() === "EVENT") {
        const header = parse(head, payload);
        if (filling && header.epoch === epoch && header.seq > last) {
          if (header.seq > last + 1n) hole(last + 1n, header.seq - 1n);
          give(header, payload);
        }
        continue;
      }
      const body = said(name, head, payload);
      if (!filling || body.id !== filling.id) continue;
      if (name.toString() === "CHUNK") say("MORE", { id: filling.id });
      else if (name.toString() === "HEAD_LOST") filling.gone = body.oldest === null;
      else if (name.toString() === "DONE") {
        const upto = filling.next ? BigInt(body.upto) : filling.to;
        if (last < upto) {
          hole(last + 1n, upto);
          last = upto;
        } else if (filling.gone && filling.next && !ended) hole(last + 1n, null);
        if (filling.next && body.next && body.next !== filling.next && body.next !== epoch) {
          [epoch, last, ended] = [body.next, 0n, false]; // an epoch between them, of which nothing was heard live
          fill(EVER, filling.next);
        } else goOn(filling.next);
      }
    } catch (error) {
      tell("bad", { why: error.message });
    }
  }
}

// No heartbeat for 1.5 s: values shown must be marked. No answer to a replay: asked again.
setInterval(() => {
  if (stale !== performance.now() - heard > 1500) tell("stale", { on: (stale = !stale) });
  if (performance.now() - Math.max(heard, dialled) > REDIAL_MS) dial();
  if (filling && performance.now() - filling.heard > SILENT_MS) fill(filling.to, filling.next);
}, 100);

await Promise.race([live(), told()]);
