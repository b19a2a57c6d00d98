// How a program comes to taskd's services: from the proto file, or from the server itself by reflection.

import { fileURLToPath } from 'node:url';

import grpc from '@grpc/grpc-js';
import loader from '@grpc/proto-loader';
import descriptor from 'protobufjs/ext/descriptor/index.js';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const PROTO = here('../../proto');

// Names as in the proto file, 64-bit numbers and enums as text; what is not set is not there.
const OPTIONS = { keepCase: true, longs: String, enums: String, arrays: true, oneofs: true, includeDirs: [PROTO] };

// Names and limits as each call's metadata want them.
export function callerOf(user) {
  const metadata = new grpc.Metadata();
  metadata.set('x-taskd-user', user);
  return metadata;
}

// Pages and results may be larger than the 4 MiB that a client takes by default; a server that is not there any more
// is noticed.
const CHANNEL = {
  'grpc.max_receive_message_length': 64 * 1024 * 1024,
  'grpc.keepalive_time_ms': 20_000,
  'grpc.keepalive_timeout_ms': 5_000,
};

// Returns clients of both services.
export async function connect(address, { reflection = false } = {}) {
  const definition = reflection ? await described(address) : loader.loadSync('taskd/v1/taskd.proto', OPTIONS);
  const { TaskService, WorkerService } = grpc.loadPackageDefinition(definition).taskd.v1;
  const open = (Service) => new Service(address, grpc.credentials.createInsecure(), CHANNEL);
  return { tasks: open(TaskService), work: open(WorkerService) };
}

// Asks the server for the files that describe the services, and for all that they import.
async function described(address) {
  const { ServerReflection } = grpc.loadPackageDefinition(loader.loadSync(here('reflection.proto'), OPTIONS)).grpc
    .reflection.v1;
  const client = new ServerReflection(address, grpc.credentials.createInsecure());
  const stream = client.ServerReflectionInfo();
  const answers = stream[Symbol.asyncIterator]();
  const files = new Map();
  const ask = async (question) => {
    stream.write(question);
    const { value: answer } = await answers.next();
    if (answer.error_response) throw new Error(answer.error_response.error_message);
    for (const bytes of answer.file_descriptor_response.file_descriptor_proto) {
      files.set(descriptor.FileDescriptorProto.decode(bytes).name, bytes);
    }
  };
  for (const service of ['taskd.v1.TaskService', 'taskd.v1.WorkerService']) {
    await ask({ file_containing_symbol: service });
  }
  const missing = () =>
    [...files.values()]
      .flatMap((bytes) => descriptor.FileDescriptorProto.decode(bytes).dependency)
      .find((name) => !files.has(name));
  for (let name = missing(); name; name = missing()) {
    await ask({ file_by_filename: name });
  }
  stream.end();
  client.close();
  const set = { file: [...files.values()].map((bytes) => descriptor.FileDescriptorProto.decode(bytes)) };
  return loader.loadFileDescriptorSetFromObject(descriptor.FileDescriptorSet.toObject(set), OPTIONS);
}

// What an error says of each field, from the google.rpc.Status in its trailer.
export function faultsOf(error) {
  const types = loader.loadSync('taskd/v1/status.proto', OPTIONS);
  const [bytes] = error.metadata.get('grpc-status-details-bin');
  const { details } = types['taskd.v1.Status'].deserialize(bytes);
  const bad = details.find(({ type_url }) => type_url.endsWith('/google.rpc.BadRequest'));
  return bad ? types['taskd.v1.BadRequest'].deserialize(bad.value).field_violations : [];
}

// Prints one line of JSON.
export function say(what) {
  console.log(JSON.stringify(what));
}
