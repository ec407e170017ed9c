import { readdirSync, readFileSync } from 'node:fs'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout } from 'node:timers/promises'
import { ones, ops, randn } from 'voxtorch'
import { opAsync } from '../../dist/native/call.js'
import { serve } from './serve.mjs'

const resolution = 5 // ms between two looks at the clock
const ticksPerSecond = 100 // USER_HZ, fixed in Linux's interface

function busySeconds() {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1e6
}

/** CPU seconds of each thread of this process so far. */
function threadSeconds() {
  const seconds = new Map()
  for (const id of readdirSync('/proc/self/task')) {
    const fields = readFileSync(`/proc/self/task/${id}/stat`, 'utf8').split(') ').at(-1).split(' ')
    seconds.set(id, (Number(fields[11]) + Number(fields[12])) / ticksPerSecond)
  }
  return seconds
}

async function watched(job) {
  const delay = monitorEventLoopDelay({ resolution })
  delay.enable()
  await setTimeout(4 * resolution)
  delay.reset()
  const start = performance.now()
  const busy = busySeconds()
  await job()
  const seconds = (performance.now() - start) / 1000
  const cores = (busySeconds() - busy) / seconds
  delay.disable()
  const late = (nanoseconds) => Math.max(0, nanoseconds / 1e6 - resolution)
  return { seconds, cores, p50: late(delay.percentile(50)), p99: late(delay.percentile(99)), max: late(delay.max) }
}

/** One matrix product that keeps the executor busy for the given time. */
async function oneMatmul(seconds, gflops) {
  const size = Math.round(Math.cbrt((seconds * gflops * 1e9) / 2))
  const [a, b] = [randn([size, size]), randn([size, size])]
  const measured = await watched(async () => (await ops.async.matmul(a, b)).dispose())
  a.dispose()
  b.dispose()
  return measured
}

/** The same time in pieces of a few milliseconds, queued all at once: a backlog must not starve the loop either. */
async function manyMatmuls(seconds, gflops) {
  const size = 768
  const count = Math.round((seconds * gflops * 1e9) / (2 * size ** 3))
  const [a, b] = [randn([size, size]), randn([size, size])]
  const measured = await watched(async () => {
    const queued = Array.from({ length: count }, async () => (await ops.async.matmul(a, b)).dispose())
    await Promise.all(queued)
  })
  a.dispose()
  b.dispose()
  return measured
}

/** An element-wise operator in the queue: only at::parallel_for can spread it. */
async function parallelFor() {
  const x = ones([1 << 24])
  ;(await ops.async.exp(x)).dispose() // the pool starts its threads
  const before = threadSeconds()
  const measured = await watched(async () => {
    for (let i = 0; i < 60; i++) (await ops.async.exp(x)).dispose()
  })
  const used = [...threadSeconds()].map(([id, seconds]) => seconds - (before.get(id) ?? 0))
  x.dispose()
  const libraries = new Set(readFileSync('/proc/self/maps', 'utf8').match(/\/\S*lib(?:gomp|omp|iomp5)\S*/g))
  return {
    threads: used.filter((seconds) => seconds > measured.seconds / 3).length,
    cores: measured.cores,
    core: await opAsync('voxtorch::parallel_threads')(),
    openmp: libraries.size,
  }
}

await serve(({ job, seconds, gflops }) => {
  if (job === 'one') return oneMatmul(seconds, gflops)
  if (job === 'many') return manyMatmuls(seconds, gflops)
  return parallelFor()
})
