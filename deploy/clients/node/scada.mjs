// A subscriber: every event of a stream in order, each once; what was lost is asked for at the replay socket.
//
//   node scada.mjs EVENTS_ENDPOINT REPLAY_ENDPOINT [q|r|a]
//
// Prints one JSON line for each event: {"seq", "verdict", "historical"} and for each hole {"hole": [from, to]}.
import * as zmq from "zeromq";
import { FLAG, KIND, command, parse, said } from "./insp.mjs";

const [events, replay, stream = "q"] = process.argv.slice(2);
if (!replay) {
  console.error("usage: node scada.mjs EVENTS_ENDPOINT REPLAY_ENDPOINT [q|r|a]");
  process.exit(64);
}
const sub = new zmq.Subscriber({ receiveHighWaterMark: 10000, linger: 0, maxMessageSize: 65536, reconnectInterval: 100 });
const ask = new zmq.Dealer({ receiveHighWaterMark: 10000, linger: 0, maxMessageSize: 65536 });
sub.connect(events);
ask.connect(replay);
sub.subscribe("insp1/");

let epoch = null;
let last = 0n;
let filling = null; // {id, to}
let held = [];
let asked = 0;

const tell = (object) => console.log(JSON.stringify(object));

function give(header, payload) {
  last = header.seq;
  const body = JSON.parse(payload);
  tell({ seq: header.seq.toString(), verdict: body.verdict ?? body.schema, historical: Boolean(header.flags & FLAG.HISTORICAL) });
}

async function fill(to) {
  filling = { id: ++asked, to };
  await new Promise((resolve) => setTimeout(resolve, 50)); // TCP does not reorder: what is missing after 50 ms was dropped
  await ask.send(command("REPLAY", { id: filling.id, stream, epoch, from: (last + 1n).toString(), to: to.toString() }));
}

function take(header, payload) {
  if (filling) return void held.push([header, payload]);
  if (epoch === null) [epoch, last] = [header.epoch, header.seq - 1n];
  if (header.epoch !== epoch) [epoch, last] = [header.epoch, 0n];
  if (header.seq <= last) return;
  if (header.seq > last + 1n) {
    held.push([header, payload]);
    return void fill(header.seq - 1n);
  }
  give(header, payload);
}

async function live() {
  for await (const frames of sub) {
    try {
      if (frames.length !== 3) throw new Error("frames");
      const [topic, head, payload] = frames;
      const header = parse(head, payload);
      const name = topic.toString().split("/")[4];
      if (name === "hb" && header.kind === KIND.HB) {
        const at = BigInt(JSON.parse(payload).head[stream]);
        if (epoch === null) [epoch, last] = [header.epoch, at]; // from here on nothing is lost in silence
        else if (header.epoch === epoch && at > last && !filling) await fill(at);
      } else if (name === stream) take(header, payload);
    } catch (error) {
      tell({ bad: error.message });
    }
  }
}

async function told() {
  for await (const [name, head, payload] of ask) {
    try {
      if (name.toString() === "EVENT") {
        const header = parse(head, payload);
        if (filling && header.epoch === epoch && header.seq > last) {
          if (header.seq > last + 1n) tell({ hole: [(last + 1n).toString(), (header.seq - 1n).toString()] });
          give(header, payload);
        }
        continue;
      }
      const body = said(name, head, payload);
      if (!filling || body.id !== filling.id) continue;
      if (name.toString() === "CHUNK") await ask.send(command("MORE", { id: filling.id }));
      else if (name.toString() === "DONE") {
        if (last < filling.to) {
          tell({ hole: [(last + 1n).toString(), filling.to.toString()] });
          last = filling.to;
        }
        const waiting = held;
        [filling, held] = [null, []];
        for (const [header, content] of waiting) take(header, content);
      }
    } catch (error) {
      tell({ bad: error.message });
    }
  }
}

await Promise.race([live(), told()]);
