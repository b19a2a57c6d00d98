// Works: runs the handlers below for a taskd. Prints JSON lines of what it is told. SIGTERM: finishes, then ends.
//
//     node worker.js HOST:PORT USER [--reflection] [--lease=SECONDS]

import { setTimeout as sleep } from 'node:timers/promises';

import { callerOf, connect, say } from './service.js';

const SLOTS = 2;

const handlers = {
  // Returns its payload.
  'node.echo': async (task) => JSON.parse(task.payload),
  // Fails, and asks for another try in a while, or for none.
  'node.fail': async (task) => {
    throw Object.assign(new TypeError('as asked'), JSON.parse(task.payload));
  },
  // Reports that it is half done, then waits until it is cancelled.
  'node.wait': (task, { signal, progress }) =>
    new Promise((_, reject) => {
      progress(0.5, 'half way');
      signal.addEventListener('abort', () => reject(signal.reason));
    }),
};

const [address, user, ...flags] = process.argv.slice(2);
const lease = Number(flags.find((flag) => flag.startsWith('--lease='))?.slice(8) ?? 10);
const { work } = await connect(address, { reflection: flags.includes('--reflection') });
const running = new Map(); // what runs: key -> { attempt, abort }
const owed = new Map(); // what has ended and is not settled: key -> result
let session = '';
let leaving = false; // this worker stops
let drained = false; // the server stops
let stream = null;

const keyOf = ({ task_id, attempt, claim }) => `${task_id} ${attempt} ${claim}`;
const duration = (seconds) => ({ seconds: Math.floor(seconds), nanos: Math.round((seconds % 1) * 1e9) });
const send = (message) => stream?.write(message);

async function run(task, claim) {
  const attempt = { task_id: task.id, attempt: task.attempt, claim };
  const abort = new AbortController();
  const progress = (fraction, note) => send({ progress: { reports: [{ attempt, fraction, note }] } });
  running.set(keyOf(attempt), { attempt, abort });
  let result;
  try {
    const value = await handlers[task.kind](task, { signal: abort.signal, progress });
    result = { attempt, result: JSON.stringify(value ?? null) };
  } catch (error) {
    const again = error.after === undefined ? {} : { retry_after: duration(error.after) };
    const failure = { type: error.name, message: error.message, final: error.final ?? false, ...again };
    // To an attempt that the server stopped any word will do: it knows what becomes of the task.
    result = abort.signal.aborted ? { attempt, released: {} } : { attempt, failure };
  }
  if (!running.delete(keyOf(attempt))) return; // its session is over
  owed.set(keyOf(attempt), result);
  send({ results: { results: [result] } });
}

function receive({ message, ...answer }) {
  if (message !== 'ping') say({ [message]: answer[message] });
  if (message === 'welcome') {
    if (!answer.welcome.resumed) {
      // What ran for another session is somebody else's now.
      for (const { abort } of running.values()) abort.abort();
      running.clear();
      owed.clear();
    }
    session = answer.welcome.session;
    if (owed.size) send({ results: { results: [...owed.values()] } });
    if (leaving) send({ leave: {} });
  } else if (message === 'tasks') {
    answer.tasks.tasks.forEach((task, n) => run(task, answer.tasks.claims[n]));
  } else if (message === 'cancel') {
    running.get(keyOf(answer.cancel.attempt))?.abort.abort();
  } else if (message === 'settled') {
    for (const { attempt } of answer.settled.results) owed.delete(keyOf(attempt));
  } else if (message === 'ping') {
    send({ pong: {} });
  } else if (message === 'drain') {
    drained = true;
  }
  closeWhenDone();
}

// Once nothing more comes and nothing is owed, closes the stream; after a drain, connects to another server.
function closeWhenDone() {
  if ((leaving || drained) && !running.size && !owed.size) stream?.end();
}

process.on('SIGTERM', () => {
  leaving = true;
  send({ leave: {} });
  closeWhenDone();
});

while (!leaving || running.size || owed.size) {
  drained = false;
  stream = work.Work(callerOf(user));
  const attempts = [...running.values(), ...owed.values()].map(({ attempt }) => attempt);
  const resumed = session && { session, running: attempts };
  stream.write({ hello: { kinds: Object.keys(handlers), slots: SLOTS, lease: duration(lease), ...resumed } });
  try {
    for await (const answer of stream) receive(answer);
  } catch (error) {
    say({ broken: error.code });
  }
  stream = null;
  if (!leaving || running.size || owed.size) await sleep(200);
}
work.close();
