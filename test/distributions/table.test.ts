// The tables of docs/guide/distributions.md against the classes.
import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { distributions, memoryStats, scope, type Tensor } from '../../lib/index.js'
import { fixture, tensorsOf } from '../helpers.js'
import { build } from './build.js'

const page = readFileSync(new URL('../../docs/guide/distributions.md', import.meta.url), 'utf8')
const rows = page
  .split('\n')
  .filter((line) => line.startsWith('| `'))
  .map((line) => line.split('|').map((cell) => cell.trim()))
const files = await Promise.all(
  ['continuous', 'discrete', 'vectors'].map((name) =>
    fixture<{ name: string; type: string; constants: Record<string, number> }>(`distributions/${name}`),
  ),
)

const METHODS = ['rsample', 'cdf', 'icdf', 'entropy', 'mean', 'variance', 'mode', 'enumerateSupport'] as const

function call(made: distributions.Distribution, method: (typeof METHODS)[number], value: Tensor): Tensor {
  if (method === 'mean' || method === 'variance' || method === 'mode') return made[method]
  if (method === 'cdf') return made.cdf(value)
  if (method === 'icdf') return made.icdf(value)
  return made[method]()
}

/** Return `yes` for each method that a distribution has. */
function supported(made: distributions.Distribution, value: Tensor): string[] {
  return METHODS.map((method) => {
    try {
      call(made, method, value)
      return 'yes'
    } catch (error) {
      expect((error as { code: string }).code).toBe('ERR_NOT_IMPLEMENTED')
      return ''
    }
  })
}

it('the page says what each class supports', () => {
  const classes = Object.entries(distributions)
    .filter(([, value]) => typeof value === 'function' && value.prototype instanceof distributions.Distribution)
    // What these support is what the distributions that they are made of support.
    .filter(
      ([name]) => !['ExponentialFamily', 'Independent', 'MixtureSameFamily', 'TransformedDistribution'].includes(name),
    )
    .map(([name]) => name)
    .sort()
  const expected = classes.map((type) => {
    const file = files.find(({ cases }) => cases.some((one) => one.type === type))!
    const { name, constants } = file.cases.find((one) => one.type === type)!
    return scope(() => [
      `\`${type}\``,
      ...supported(build(name, tensorsOf(file, name, 'param'), constants), tensorsOf(file, name, 'in').value!),
    ])
  })
  const found = rows.filter((row) => row.length === METHODS.length + 4)
  expect(found.map(([, name, , ...cells]) => [name, ...cells.slice(0, -1)])).toEqual(expected)
})

it('every method and property leaves no tensor but its result', () => {
  for (const file of files) {
    for (const { name, constants } of file.cases) {
      scope(() => {
        const made = build(name, tensorsOf(file, name, 'param'), constants)
        const { value } = tensorsOf(file, name, 'in')
        const properties = Object.keys(made.argConstraints).concat('probs', 'logits')
        const read = (property: string) => (made as unknown as Record<string, Tensor | undefined>)[property]
        const calls: Record<string, () => Tensor | undefined> = {
          logProb: () => made.logProb(value!),
          sample: () => made.sample([2]),
          perplexity: () => made.perplexity(),
          stddev: () => made.stddev,
          ...Object.fromEntries(properties.map((property) => [property, () => read(property)])),
          ...Object.fromEntries(METHODS.map((method) => [method, () => call(made, method, value!)])),
        }
        for (const [what, run] of Object.entries(calls)) {
          const before = memoryStats().liveTensors
          let count = 1
          try {
            count = run() === undefined ? 0 : 1
          } catch {
            count = 0
          }
          expect(memoryStats().liveTensors - before, `${name}.${what}`).toBe(count)
        }
      })
    }
  }
})
