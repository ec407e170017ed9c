import { setImmediate } from 'node:timers/promises'
import { functional, ones, randn, scope, zeros } from 'voxtorch'
import { rates } from './rates.mjs'
import { serve, timedBlocks } from './serve.mjs'
import { makeTrainingStep } from './training-step.mjs'

const one = ones([1])
const other = ones([1])
const square = randn([64, 64])
const second = randn([64, 64])
const rows = randn([32, 768])
const weight = ones([768])
const bias = zeros([768])
const step = makeTrainingStep()

/** `perScope` operators share a scope: about what one training step makes, or one layer where results are large. */
function inScopes(body, perScope = 100) {
  return (n) => {
    for (let done = 0; done < n; done += perScope) {
      const count = Math.min(perScope, n - done)
      scope(() => body(count))
    }
  }
}

const outer = 1000

await serve(
  timedBlocks({
    addInScope: inScopes((n) => {
      for (let i = 0; i < n; i++) one.add(other)
    }),
    // Outside a scope the collector frees, and only between macrotasks: the turns of the loop that it needs are part of the price.
    addOutside: async (n) => {
      for (let done = 0; done < n; done += outer) {
        const count = Math.min(outer, n - done)
        for (let i = 0; i < count; i++) one.add(other)
        await setImmediate()
      }
    },
    matmul: inScopes((n) => {
      for (let i = 0; i < n; i++) square.matmul(second)
    }),
    layerNorm: inScopes((n) => {
      for (let i = 0; i < n; i++) functional.layerNorm(rows, [768], { weight, bias })
    }, 10),
    slice: inScopes((n) => {
      for (let i = 0; i < n; i++) square.slice(0, 1, 5)
    }),
    trainingStep: async (n) => {
      for (let i = 0; i < n; i++) await step()
    },
    ...rates,
  }),
)
