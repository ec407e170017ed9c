import { describe, expect, test } from 'vitest'
import { memoryStats, noGrad, scope } from '../../lib/index.js'
import { fixture } from '../helpers.js'
import { type Case, FILES, prepare } from './cases.js'

// Synchronous from count to count, so that garbage collection cannot hide a leak.
const live = () => memoryStats().liveTensors

describe.each(FILES)('%s leave no temporaries', async (name) => {
  const file = await fixture<Case>(`nn/${name}`)

  test.each(file.cases)('$name', (item) => {
    const { module, inputs, forward } = prepare(file, item)
    const before = live()
    const outputs = Object.values(forward())
    expect(live() - before, 'outside any scope').toBe(outputs.length)
    for (const output of outputs) output.dispose()
    expect(live()).toBe(before)

    noGrad(() => {
      for (const output of Object.values(forward())) output.dispose()
    })
    expect(live(), 'without gradients').toBe(before)

    scope(() => {
      forward()
    })
    expect(live(), 'in a scope').toBe(before)
    for (const input of Object.values(inputs)) input.dispose()
    module?.dispose()
  })
})

test('building, moving, loading and freeing a layer leaves nothing', async () => {
  const { cases } = await fixture<Case>('nn/basic')
  const { build } = await import('./cases.js')
  for (const item of cases.filter(({ construct }) => construct)) {
    const before = live()
    const module = build(item.call, item.construct!)
    const own = module.parameters().length + module.namedBuffers().length
    expect(live() - before, item.name).toBe(own)
    module.to({ dtype: 'float64' }).eval().freeze().zeroGrad()
    module.loadStateDict(module.stateDict())
    module.summary()
    expect(live() - before, item.name).toBe(own)
    module.dispose()
    expect(live(), item.name).toBe(before)
  }
})
