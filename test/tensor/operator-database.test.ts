import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { beforeAll, expect, test } from 'vitest'
import { fft, functional, linalg, special } from '../../lib/index.js'
import { camel } from '../../scripts/schemas.js'

/** Why operators are not there, or not wholly. */
const listed = JSON.parse(readFileSync(new URL('operator-database.json', import.meta.url), 'utf8')) as {
  absent: Record<string, string[]>
  partly: Record<string, string>
}
const script = fileURLToPath(new URL('database-process.mjs', import.meta.url))

interface Result {
  outcome: 'equal' | 'refused' | 'wrong' | 'absent'
  why?: string
}
const results = new Map<string, Result[]>()
/** The operator that was being called when the process ended. */
let last: string | undefined
let ending = ''

// In a process of its own: one that crashes is a failure with a name.
beforeAll(async () => {
  const child = spawn(process.execPath, [script], { stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  let errors = ''
  child.stdout.on('data', (chunk) => {
    output += chunk
  })
  child.stderr.on('data', (chunk) => {
    errors = (errors + chunk).slice(-4000)
  })
  const [code, signal] = await new Promise<unknown[]>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (...values) => resolve(values))
  })
  for (const line of output.trim().split('\n')) {
    const { begins, name, results: found } = JSON.parse(line)
    last = begins
    if (found) results.set(name, [...(results.get(name) ?? []), ...found])
  }
  if (code !== 0) ending = `it ended with ${code ?? signal} in ${last}: ${errors}`
}, 600_000)

const having = (outcome: Result['outcome']) =>
  [...results].filter(([, found]) => found.some((result) => result.outcome === outcome))

test('no call ends the process', () => {
  expect(ending).toBe('')
  expect(results.size).toBeGreaterThan(690)
})

test('no result or gradient is wrong', () => {
  const wrong = having('wrong').map(([name, found]) => [name, found.find((result) => result.outcome === 'wrong')!.why])
  expect(wrong).toEqual([])
})

test('what is absent is on the list, with its reason', () => {
  expect(
    having('absent')
      .map(([name]) => name)
      .sort(),
  ).toEqual(Object.values(listed.absent).flat().sort())
})

test('what refuses some samples is on the list, with its reason', () => {
  const refusing = having('refused').map(([name, found]) => [name, found.find((one) => one.outcome === 'refused')!.why])
  expect(refusing.filter(([name]) => !Object.hasOwn(listed.partly, name!))).toEqual([])
  expect(refusing.map(([name]) => name)).toEqual(Object.keys(listed.partly))
})

test('every function of functional, fft, linalg and special has a sample of PyTorch, with its arguments', () => {
  const compared = new Set(
    having('equal').map(([name]) => {
      const [, module = '', inner = ''] = /^(nn\.functional|fft|linalg|special)\.(\w+)/.exec(name!) ?? []
      return `${module.replace('nn.', '')}.${camel(inner)}`
    }),
  )
  const modules = { functional, fft, linalg, special }
  const all = Object.entries(modules).flatMap(([module, names]) =>
    Object.keys(names).map((name) => `${module}.${name}`),
  )
  // The asynchronous form of linearCrossEntropy is not PyTorch's.
  expect(all.filter((name) => !compared.has(name))).toEqual(['functional.linearCrossEntropyAsync'])
  expect(all.length).toBeGreaterThanOrEqual(247)
})

test('the tally', () => {
  const tried = [...results.values()].filter((found) => found.length > 0)
  const equal = tried.filter((found) => found.every((result) => result.outcome === 'equal'))
  const samples = tried.flat().filter((result) => result.outcome === 'equal')
  // Of 702 entries of the database some have no small sample on the CPU, or need what JavaScript cannot be given.
  expect(equal.length).toBeGreaterThanOrEqual(590)
  expect(samples.length).toBeGreaterThanOrEqual(1850)
})
