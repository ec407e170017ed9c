import { spawnSync } from 'node:child_process'
import { WavLM } from 'voxtorch'
import { measureRates } from './duel.js'
import type { Options } from './options.js'
import { BenchError, findPython, peersFolder, root } from './peer.js'
import type { Report, Row } from './report.js'
import { removeScratch, scratchFolder } from './scratch.js'
import { compare, summarise } from './statistics.js'

/** Wall time of a process from start to finish, in milliseconds. */
function lifetime(command: string, args: string[]): number {
  const start = process.hrtime.bigint()
  const { status, stderr } = spawnSync(command, args, {
    cwd: root,
    encoding: 'utf8',
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const milliseconds = Number(process.hrtime.bigint() - start) / 1e6
  if (status !== 0) throw new BenchError(`${command} ${args.join(' ')} failed: ${stderr}`)
  return milliseconds
}

/** WavLM of base size, 378 MB. */
async function writeNetwork(folder: string): Promise<void> {
  const network = new WavLM({})
  await network.save(folder)
  network.dispose()
}

export async function run({ rounds = 15, only = '' }: Options): Promise<Report> {
  const folder = scratchFolder()
  try {
    await writeNetwork(folder)
    return await measure(folder, rounds, only)
  } finally {
    removeScratch(folder)
  }
}

async function measure(folder: string, rounds: number, only: string): Promise<Report> {
  const { rates, versions } = await measureRates()
  const python = findPython()
  const node = (script: string, ...values: string[]) => [process.execPath, `${peersFolder}${script}`, ...values]
  const imported = 'from transformers import WavLMConfig, WavLMModel; WavLMModel'
  const cases: { label: string; target?: number; voxtorch: string[]; torch: string[] }[] = [
    {
      label: 'import and first tensor, start to exit',
      target: 0.25,
      voxtorch: node('load.mjs'),
      torch: [python, '-c', 'import torch; torch.tensor([1])'],
    },
    {
      label: 'import and WavLM-base fromPretrained, start to exit',
      target: 0.2,
      voxtorch: node('load-network.mjs', folder),
      torch: [python, '-c', `${imported}.from_pretrained(${JSON.stringify(folder)})`],
    },
    {
      label: 'import and WavLM-base from a configuration, start to exit',
      target: 0.25,
      voxtorch: node('load-network.mjs'),
      torch: [python, '-c', `${imported}(WavLMConfig())`],
    },
    // What remains after subtracting the bare interpreters is the library's own.
    {
      label: 'bare node / bare python',
      voxtorch: [process.execPath, '--input-type=module', '-e', '0'],
      torch: [python, '-c', '0'],
    },
  ]
  const chosen = cases.filter(({ label }) => label.includes(only))
  const times = chosen.map(() => ({ voxtorch: [] as number[], torch: [] as number[] }))
  for (let round = -1; round < rounds; round++) {
    for (const [i, one] of chosen.entries()) {
      for (const side of ['voxtorch', 'torch'] as const) {
        const [command, ...values] = one[side]
        const milliseconds = lifetime(command, values)
        if (round >= 0) times[i][side].push(milliseconds) // round -1 fills the page cache
      }
    }
  }
  const rows: Row[] = chosen.map(({ label, target }, i) => {
    const ratios = compare(times[i].voxtorch, times[i].torch)
    const [voxtorch, torch] = [summarise(times[i].voxtorch), summarise(times[i].torch)]
    const met = target === undefined ? undefined : ratios.ratio <= target
    return { label, unit: 'ms', voxtorch, torch, ...ratios, target, met }
  })
  return { question: 'load', rounds, rows, rates, versions }
}
