// Creates a task, reads it, lists it, and watches it until its end. Prints JSON lines.
//
//     node tasks.js HOST:PORT USER KIND [--reflection]

import { promisify } from 'node:util';

import { callerOf, connect, faultsOf, say } from './service.js';

const [address, user, kind, ...flags] = process.argv.slice(2);
const { tasks: service } = await connect(address, { reflection: flags.includes('--reflection') });
const metadata = callerOf(user);
const FINAL = ['TASK_STATUS_DONE', 'TASK_STATUS_FAILED', 'TASK_STATUS_CANCELLED'];

// One call, with a deadline.
function call(method, request) {
  const deadline = Date.now() + 30_000;
  return promisify(service[method].bind(service))(request, metadata, { deadline });
}

try {
  await call('CreateTask', { task: { title: '', priority: 101 } });
} catch (error) {
  say({ refused: error.code, faults: faultsOf(error) });
}

// The watch begins with an answer that has no events: what is done after it is seen.
const watch = service.WatchTasks({ kinds: [kind] }, metadata);
const answers = watch[Symbol.asyncIterator]();
const { value: first } = await answers.next();
say({ watching: first.cursor });

const { task } = await call('CreateTask', {
  task: { title: 'from Node.js: «отчёт» 📋', kind, payload: JSON.stringify({ number: 1.5, text: 'ёж' }) },
});
say({ created: task });
say({ read: (await call('GetTask', { id: task.id })).task });
const page = await call('ListTasks', { kind, limit: 10 });
say({ listed: page.tasks.map(({ id }) => id) });

follow: for await (const { events } of { [Symbol.asyncIterator]: () => answers }) {
  for (const event of events) {
    say({ event: event.type, cursor: event.cursor, status: event.task.status, result: event.task.result });
    if (event.task.id === task.id && FINAL.includes(event.task.status)) break follow;
  }
}
watch.cancel();
service.close();
