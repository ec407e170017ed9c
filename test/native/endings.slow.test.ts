import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { PATIENCE } from '../patience.js'

const script = fileURLToPath(new URL('./scenarios.mjs', import.meta.url))

interface Ending {
  code: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
}

/** Runs a scenario in a process of its own, which is killed when it has not ended in time. */
function run(name: string, environment: Record<string, string> = {}): Promise<Ending> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [script, name], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...environment },
    })
    const output = { stdout: '', stderr: '' }
    child.stdout.on('data', (chunk) => {
      output.stdout += chunk
    })
    child.stderr.on('data', (chunk) => {
      output.stderr += chunk
    })
    const timer = setTimeout(() => child.kill('SIGKILL'), PATIENCE)
    child.on('error', reject)
    child.on('close', (code, signal) => {
      clearTimeout(timer)
      resolve({ code, signal, ...output })
    })
  })
}

const names = [
  ...readFileSync(script, 'utf8')
    .split('const scenarios = {')[1]!
    .matchAll(/^ {2}(?:async )?'([^']+)'/gm),
].map((match) => match[1]!)
const failing = [
  'threads that cannot be made',
  'an uncaught exception with a job queued',
  'an unhandled rejection of a job',
]

describe('ends cleanly', () => {
  test.each(names.filter((name) => !failing.includes(name)))('%s', async (name) => {
    expect(await run(name)).toEqual({ code: 0, signal: null, stdout: 'ok\n', stderr: '' })
  })
})

test('ends where libgomp ends the process because no thread can be made', async () => {
  // It calls exit() in the middle of a job, on the executor's thread.
  const { code, signal, stderr } = await run('threads that cannot be made', { OMP_STACKSIZE: '1000000G' })
  expect([code, signal]).toEqual([1, null])
  expect(stderr).toMatch(/libgomp: Thread creation failed/)
})

describe('ends as Node does', () => {
  test('an uncaught exception with a job queued', async () => {
    const { code, signal, stderr } = await run('an uncaught exception with a job queued')
    expect([code, signal]).toEqual([1, null])
    expect(stderr).toMatch(/uncaught, on purpose[\s\S]*scenarios\.mjs/)
  })

  test('an unhandled rejection of a job', async () => {
    const { code, signal, stderr } = await run('an unhandled rejection of a job')
    expect([code, signal]).toEqual([1, null])
    expect(stderr).toMatch(/ShapeError: matmul[\s\S]*scenarios\.mjs/)
  })
})
