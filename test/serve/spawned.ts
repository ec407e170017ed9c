import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { expect } from 'vitest'
import { PATIENCE } from '../patience.js'
import { call } from './client.js'

/** A server in a process of its own. */
export async function start(...values: string[]) {
  const script = fileURLToPath(new URL('process.mjs', import.meta.url))
  const child = spawn(process.execPath, ['--expose-gc', script, ...values], { stdio: ['pipe', 'pipe', 'inherit'] })
  const exit = once(child, 'exit')
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const line = async () => (await lines.next()).value as string
  const url = await line()
  const stats = async () => {
    // Those that were aborted may still be decoded.
    await expect.poll(async () => (await call(url, '/health')).json.running, { timeout: PATIENCE }).toBe(0)
    child.stdin.write('\n')
    return JSON.parse(await line()) as Record<string, number> & { rss: number; liveTensors: number }
  }
  return { url, stats, child, exit }
}
