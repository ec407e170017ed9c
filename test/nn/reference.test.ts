import { describe, expect, test } from 'vitest'
import { scope } from '../../lib/index.js'
import { expectClose, fixture, tensorsOf } from '../helpers.js'
import { type Case, FILES, prepare } from './cases.js'

describe.each(FILES)('%s as in PyTorch', async (name) => {
  const file = await fixture<Case>(`nn/${name}`)

  test.each(file.cases)('$name', (item) =>
    scope(async () => {
      const { module, inputs, forward } = prepare(file, item)
      if (module) expect(Object.keys(module.stateDict())).toEqual(item.state)

      const outputs = forward()
      expect(Object.keys(outputs)).toEqual(item.outputs)
      const expected = tensorsOf(file, item.name, 'out')
      for (const [key, value] of Object.entries(outputs)) expectClose(value, expected[key]!, 1e-5, key)

      const cotangents = tensorsOf(file, item.name, 'cotangent')
      const terms = Object.entries(outputs)
        .filter(([, value]) => value.requiresGrad)
        .map(([key, value]) => value.mul(cotangents[key]!).sum())
      if (terms.length > 0) await terms.reduce((sum, term) => sum.add(term)).backward()

      const gradients = tensorsOf(file, item.name, 'grad')
      expect(Object.keys(gradients).sort()).toEqual([...item.gradients].sort())
      for (const [key, value] of Object.entries(gradients))
        expectClose(inputs[key]!.grad!, value, 1e-5, `grad of ${key}`)

      if (!module) return
      const parameters = new Map(module.namedParameters())
      const parameterGradients = tensorsOf(file, item.name, 'paramgrad')
      expect([...parameters.keys()].sort()).toEqual(Object.keys(parameterGradients).sort())
      for (const [key, value] of Object.entries(parameterGradients)) {
        expectClose(parameters.get(key)!.grad!, value, 1e-5, `grad of ${key}`)
      }
      const buffers = new Map(module.namedBuffers())
      for (const [key, value] of Object.entries(tensorsOf(file, item.name, 'buffer'))) {
        expectClose(buffers.get(key)!, value, 1e-5, key)
      }
      module.dispose()
    }),
  )
})
