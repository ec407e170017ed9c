// The tables of docs/guide/distributions.md against the classes.
import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { distributions, scope, type Tensor } from '../../lib/index.js'
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

/** Return `yes` for each method that a distribution has. */
function supported(made: distributions.Distribution, value: Tensor): string[] {
  return METHODS.map((method) => {
    try {
      if (method === 'mean' || method === 'variance' || method === 'mode') void made[method]
      else if (method === 'cdf') made.cdf(value)
      else if (method === 'icdf') made.icdf(made.cdf(value))
      else made[method]()
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
    .filter(([name]) => !['Independent', 'MixtureSameFamily', 'TransformedDistribution'].includes(name))
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
