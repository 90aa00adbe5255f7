// BullMQ: its jobs for the benchmark, and its producer.
//
//   node app_bullmq.cjs worker CONCURRENCY
//   node app_bullmq.cjs single|bulk COUNT        and the other ways of producing.py
'use strict';

const fs = require('fs');
const { Queue, Worker } = require('bullmq');
const Redis = require('ioredis');

const NAME = 'benchmark';
const BATCH = 1000;
const PAUSE_MS = 5;
const PARKED_MS = 600000;
const expected = Number(process.env.LOADTEST_COUNT || 0);

function connect() {
  // As its documentation has it for workers.
  return new Redis(process.env.GREENQ_BROKER_URL, { maxRetriesPerRequest: null });
}

// Of the clock that all processes of a machine share.
function now() {
  return Number(process.hrtime.bigint()) / 1e9;
}

function cpu() {
  const used = process.cpuUsage();
  return (used.user + used.system) / 1e6;
}

function tell(what) {
  fs.appendFileSync(process.env.LOADTEST_PIPE, JSON.stringify(what) + '\n');
}

function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

// -- the worker

let begun = 0;
let ended = 0;
let beganAt = 0;
let cpuBefore = 0;
let parked = 0;
const late = [];

function begin() {
  if (!begun) {
    tell({ began: now() });
    beganAt = now();
    cpuBefore = cpu();
  }
  begun += 1;
}

function end() {
  ended += 1;
  if (ended === expected) {
    const at = now();
    tell({ ended: at, seconds: at - beganAt, cpu_s: cpu() - cpuBefore, pid: process.pid });
  }
}

const jobs = {
  async noop() {
    begin();
    end();
  },
  async nap() {
    begin();
    await sleep(100);
    end();
  },
  async park() {
    parked += 1;
    if (parked === expected) tell({ all_started: now(), pid: process.pid });
    await sleep(PARKED_MS);
  },
  async ping() {
    tell({ started: now(), pid: process.pid });
  },
  async due(number) {
    late.push(Date.now() - number);
    if (late.length === expected) {
      late.sort((one, other) => one - other);
      tell({ p50_ms: late[Math.floor(late.length / 2)], p99_ms: late[Math.floor((late.length * 99) / 100)] });
    }
  },
};

function work(concurrency) {
  const worker = new Worker(NAME, (job) => jobs[job.name](job.data), {
    connection: connect(),
    concurrency,
    removeOnComplete: { count: 0 },
  });
  worker.on('error', (error) => console.error(error));
}

// -- the producer

async function fill(queue, job, numbers, options) {
  for (let start = 0; start < numbers.length; start += BATCH) {
    const batch = numbers.slice(start, start + BATCH);
    await queue.addBulk(batch.map((number) => ({ name: job, data: number, opts: { removeOnComplete: true, ...options() } })));
  }
}

function range(count) {
  return Array.from({ length: count }, (_, number) => number);
}

function readLine(pipe) {
  const buffer = Buffer.alloc(4096);
  return JSON.parse(buffer.toString('utf8', 0, fs.readSync(pipe, buffer)));
}

const ways = {
  async single(queue, count) {
    await queue.add('noop', 0, { removeOnComplete: true });
    const started = now();
    for (let number = 0; number < Number(count); number += 1) {
      await queue.add('noop', number, { removeOnComplete: true });
    }
    return { per_s: Number(count) / (now() - started) };
  },
  async bulk(queue, count) {
    await queue.add('noop', 0, { removeOnComplete: true });
    const numbers = range(Number(count));
    const started = now();
    await fill(queue, 'noop', numbers, () => ({}));
    return { per_s: Number(count) / (now() - started) };
  },
  async fill(queue, job, count) {
    await fill(queue, job, range(Number(count)), () => ({}));
    return {};
  },
  async later(queue, job, count, dueMs) {
    const due = Number(dueMs);
    await fill(queue, job, Array(Number(count)).fill(due), () => ({ delay: due - Date.now() }));
    return {};
  },
  async latency(queue, count, seconds) {
    const pipe = fs.openSync(process.env.LOADTEST_PIPE, 'r+');
    const latencies = [];
    const ends = now() + Number(seconds);
    while (latencies.length < Number(count) && now() < ends) {
      await sleep(PAUSE_MS);
      const sent = now();
      await queue.add('ping', 0, { removeOnComplete: true });
      latencies.push((readLine(pipe).started - sent) * 1000);
    }
    latencies.sort((one, other) => one - other);
    return {
      p50_ms: latencies[Math.floor(latencies.length / 2)],
      p99_ms: latencies[Math.floor((latencies.length * 99) / 100)],
      count: latencies.length,
    };
  },
};

async function main() {
  const [way, ...args] = process.argv.slice(2);
  if (way === 'worker') {
    work(Number(args[0]));
    return;
  }
  const queue = new Queue(NAME, { connection: connect() });
  console.log(JSON.stringify(await ways[way](queue, ...args)));
  process.exit(0);
}

main();
