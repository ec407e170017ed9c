import { expect } from 'vitest'
import { ops, scope, Tensor } from '../../lib/index.js'
import { fixture, numbers, relativeError } from '../helpers.js'

/** A Python expression that a script of test/reference evaluated, which is also the case's name. */
export interface Expression {
  name: string
  dtypes: string[]
  shapes: number[][]
}

export type Inputs = Record<string, Tensor>
/** The same expression in TypeScript, by the Python one. Inputs are fresh copies. */
export type Table = Record<string, (inputs: never) => unknown>

export interface Expressions {
  cases: Expression[]
  /** Fails unless the TypeScript expression gives what Python gave. */
  check(item: Expression, table: Table, tolerance: number): void
}

/** Reads test/fixtures/tensor/<name>.safetensors, of which each case needs an entry in the table. */
export async function expressions(name: string): Promise<Expressions> {
  const file = await fixture<Expression>(`tensor/${name}`)
  const inputs = Object.entries(file.tensors).filter(([key]) => key.startsWith('inputs/in/'))
  return {
    cases: file.cases.filter((item) => item.name !== 'inputs'),
    check: (item, table, tolerance) =>
      scope(() => {
        const run = table[item.name] as ((inputs: Inputs) => unknown) | undefined
        if (run === undefined) throw new Error(`the table has no '${item.name}'`)
        const fresh = Object.fromEntries(inputs.map(([key, value]) => [key.slice('inputs/in/'.length), value.clone()]))
        const results = listOf(run(fresh))
        expect(results.length, 'number of results').toBe(item.shapes.length)
        results.forEach((result, i) => {
          const expected = file.tensors[`${item.name}/out/${i}`]!
          if (!(result instanceof Tensor)) {
            expect(Number(result)).toBe(Number(expected.item()))
            return
          }
          expect(result.dtype, `dtype of ${i}`).toBe(item.dtypes[i])
          expect(result.shape, `shape of ${i}`).toEqual(item.shapes[i])
          const comparable = result.dtype.startsWith('complex') ? ops.viewAsReal(result.resolveConj()) : result
          const error = relativeError(numbers(comparable).map(Number), numbers(expected).map(Number))
          expect(error, `max|a-b| / max|b| of ${i}`).toBeLessThanOrEqual(tolerance)
        })
      }),
  }
}

/** The results in order: an object's fields are a named tuple's. */
function listOf(result: unknown): unknown[] {
  if (Array.isArray(result)) return result
  if (typeof result !== 'object' || result === null || result instanceof Tensor) return [result]
  return Object.values(result)
}
