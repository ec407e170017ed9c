import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { PATIENCE } from '../patience.js'

// Node-API may refuse any call: then there is an Error, and neither a crash nor a promise that never settles.

const file = (name: string) => fileURLToPath(new URL(name, import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'voxtorch-faults-'))
const library = join(folder, 'faults.node')

beforeAll(() => {
  const { include_dir } = createRequire(import.meta.url)('node-api-headers') as { include_dir: string }
  execFileSync('cc', ['-shared', '-fPIC', '-O1', '-I', include_dir, '-o', library, file('faults.c'), '-ldl'])
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** The function, which of its calls was refused, and what became of it. */
type Fault = [name: string, n: number, outcome: string]

function refusing(what: 'loading' | 'running'): Promise<Fault[]> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [file('faults.mjs'), what], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, VOXTORCH_FAULTS: library, VOXTORCH_PATIENCE: String(PATIENCE / 4) },
    })
    let output = ''
    let errors = ''
    child.stdout.on('data', (chunk) => {
      output += chunk
    })
    child.stderr.on('data', (chunk) => {
      errors += chunk
    })
    child.on('error', reject)
    child.on('close', (code, signal) => {
      const lines = output.split('\n').filter((line) => line !== '')
      if (code === 0) resolve(lines.map((line) => JSON.parse(line)))
      else reject(new Error(`ended with ${code ?? signal} after ${lines.at(-1)}\n${errors}`))
    })
  })
}

const is = (pattern: RegExp) => (fault: Fault) => pattern.test(fault[0])

describe('where Node-API refuses a call', () => {
  test('loading gives an Error, and the next thread loads', async () => {
    const faults = await refusing('loading')
    const afterwards = faults.filter(is(/^afterwards/))
    expect(afterwards).toEqual([['afterwards: loading', 0, 'worked']])
    const refused = faults.filter((fault) => !afterwards.includes(fault))
    for (const fault of refused) expect(fault[2], fault.join(' ')).toMatch(/^(worked|\w*Error: .+)/)
    for (const name of ['create_threadsafe_function', 'create_reference', 'set_instance_data', 'create_function']) {
      const [fault] = refused.filter(is(new RegExp(`_${name}$`)))
      expect(fault?.[2], name).toMatch(/Error/)
    }
  })

  test('a call gives an Error or does without, no promise hangs, and the next call works', async () => {
    const faults = await refusing('running')
    const others = is(/^(afterwards|jobs left)/)
    const refused = faults.filter((fault) => !others(fault))
    for (const fault of refused) expect(fault[2], fault.join(' ')).toMatch(/^(worked|(uncaught )?\w*Error: .+)/)
    expect(faults.filter(others).filter(([, n, outcome]) => n !== 0 || outcome !== 'worked')).toEqual([])
    // Some that would leave a promise behind.
    const outcomes = (name: string) => refused.filter(is(new RegExp(`^${name}$`))).map(([, , outcome]) => outcome)
    expect(outcomes('napi_ref_threadsafe_function')[0]).toMatch(/Error/)
    expect(outcomes('napi_call_threadsafe_function')[0]).toBe('worked') // tried again
    expect(outcomes('napi_call_function')[0]).toBe('worked')
    expect(outcomes('napi_get_instance_data')[0]).toMatch(/Error/)
  })
})
