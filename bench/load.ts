import { spawnSync } from 'node:child_process'
import { measureRates } from './duel.js'
import type { Options } from './main.js'
import { BenchError, findPython, peersFolder, root } from './peer.js'
import type { Report, Row } from './report.js'
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

export async function run({ rounds = 15 }: Options): Promise<Report> {
  const { rates, versions } = await measureRates()
  const python = findPython()
  // The bare interpreters stand beside them: what remains after subtracting them is the library's own.
  const starts = {
    voxtorch: [process.execPath, [`${peersFolder}load.mjs`]],
    torch: [python, ['-c', 'import torch; torch.tensor([1])']],
    node: [process.execPath, ['--input-type=module', '-e', '0']],
    python: [python, ['-c', '0']],
  } as const
  const times = { voxtorch: [] as number[], torch: [] as number[], node: [] as number[], python: [] as number[] }
  for (let round = -1; round < rounds; round++) {
    for (const side of ['voxtorch', 'torch', 'node', 'python'] as const) {
      const [command, args] = starts[side]
      const milliseconds = lifetime(command, [...args])
      if (round >= 0) times[side].push(milliseconds) // round -1 fills the page cache
    }
  }
  const row = (label: string, ours: number[], theirs: number[], target?: number): Row => {
    const ratios = compare(ours, theirs)
    return {
      label,
      unit: 'ms',
      voxtorch: summarise(ours),
      torch: summarise(theirs),
      ...ratios,
      target,
      met: target === undefined ? undefined : ratios.ratio <= target,
    }
  }
  const rows = [
    row('import and first tensor, start to exit', times.voxtorch, times.torch, 0.25),
    row('bare node / bare python', times.node, times.python),
  ]
  return { question: 'load', rounds, rows, rates, versions }
}
