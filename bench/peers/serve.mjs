// One JSON line in, one JSON line out, until stdin closes. The same protocol as serve.py.
import { createInterface } from 'node:readline'
import { getNumThreads } from 'voxtorch'
import { nativeInfo, packageVersion } from '../../dist/native/load.js'

function versions() {
  return {
    node: process.versions.node,
    voxtorch: packageVersion(),
    libtorch: nativeInfo().search.libtorch.version,
    voxtorch_threads: String(getNumThreads()),
  }
}

export async function serve(answer) {
  console.log(JSON.stringify(versions()))
  for await (const line of createInterface({ input: process.stdin })) {
    let reply
    try {
      reply = await answer(JSON.parse(line))
    } catch (error) {
      reply = { error: error.stack ?? String(error) } // any error goes to the other side
    }
    console.log(JSON.stringify(reply))
  }
}

/** A case whose run takes longer than this is warm after one run, and runs alone. */
const LONG = 1e9

/** cases: name -> function (n) that runs the case n times, perhaps asynchronously. The first block of a case finds n. */
export function timedBlocks(cases) {
  const counts = new Map()
  const long = new Set()

  async function timeOf(run, n) {
    const start = process.hrtime.bigint()
    await run(n)
    return Number(process.hrtime.bigint() - start)
  }

  async function calibrate(name, run, budget) {
    if ((await timeOf(run, 1)) > Math.max(budget, LONG)) {
      long.add(name)
      return 1
    }
    let n = 1
    while ((await timeOf(run, n)) < budget / 2) n *= 2
    return Math.max(1, Math.round((n * budget) / (await timeOf(run, n))))
  }

  // `warm`: of what runs again and again, as steps of a training do, though the other side's turn lasts as long as memory is kept.
  return async ({ case: name, milliseconds, once = false, warm = false }) => {
    const run = cases[name]
    if (once) return { nanoseconds: await timeOf(run, 1) }
    if (!counts.has(name)) counts.set(name, await calibrate(name, run, milliseconds * 1e6))
    const n = counts.get(name)
    if (warm || !long.has(name)) await run(Math.max(1, Math.floor(n / 10))) // caches and clock are warm when the measured part starts
    return { nanoseconds: (await timeOf(run, n)) / n }
  }
}
