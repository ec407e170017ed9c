import { type ChildProcess, spawn } from 'node:child_process'
import { setPriority } from 'node:os'

/**
 * Busy processes in parallel with the benchmark, for `--loaded`. They compute and rest on command, and end when their standard
 * input closes, also after a crash of the benchmark.
 */
const PROGRAM = `
  let busy = false, x = 1
  const spin = () => {
    const end = performance.now() + 20
    while (performance.now() < end) for (let i = 0; i < 10000; i++) x = x * 1.0000001 + 1e-9
    if (busy) setImmediate(spin)
  }
  process.stdin.on('data', (bytes) => {
    const before = busy
    busy = bytes.toString().trim().endsWith('go')
    if (busy && !before) spin()
  })
  process.stdin.on('end', () => process.exit(0))
`

export interface BusyProcesses {
  readonly count: number
  readonly nice: number
  go(): Promise<void>
  rest(): Promise<void>
}

let started: { busy: BusyProcesses; children: ChildProcess[] } | undefined

/** Those of this run; undefined where it is measured quiet alone. */
export const busyProcesses = (): BusyProcesses | undefined => started?.busy

export function startLoad(count: number, nice: number): void {
  const children = Array.from({ length: count }, () => {
    const child = spawn(process.execPath, ['-e', PROGRAM], { stdio: ['pipe', 'ignore', 'inherit'] })
    if (nice !== 0 && child.pid !== undefined) setPriority(child.pid, nice)
    return child
  })
  // The processes take a moment to hear it, and the caches a moment to be warm again.
  const tell = async (word: string) => {
    for (const child of children) child.stdin?.write(`${word}\n`)
    await new Promise((resolve) => setTimeout(resolve, 200))
  }
  started = { busy: { count, nice, go: () => tell('go'), rest: () => tell('rest') }, children }
}

export function endLoad(): void {
  for (const child of started?.children ?? []) child.kill('SIGKILL')
  started = undefined
}
