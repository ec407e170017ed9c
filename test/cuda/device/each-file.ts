import { beforeEach, expect } from 'vitest'
import { currentContext } from '../../../lib/native/context.js'
import { deviceWord } from '../../../lib/tensor/dtype.js'
import { exclusions } from './exclusions.js'

// What runs before every test file on the pretended device: its tensors and networks are made there, as if all of it stood
// in withDevice('cuda'). Where no context was entered yet, the current one is the root of all.

const put = (name: 'cpu' | 'cuda') =>
  Object.assign(
    currentContext(),
    name === 'cpu' ? { device: 0, deviceName: null } : { device: deviceWord(name), deviceName: name },
  )
put('cuda')

const path = (expect.getState().testPath ?? '').replace(/^.*\/test\//, 'test/')
const excluded = exclusions.filter(({ file }) => file === path)

// What is excluded runs all the same, and must fail: who mends it takes it from the list.
beforeEach(({ task }) => {
  // What is of the CPU by its name stays there.
  put(/\bon the CPU\b/.test(fullName(task)) ? 'cpu' : 'cuda')
  if (excluded.some(({ tests }) => tests.includes(fullName(task)))) {
    ;(task as { fails?: boolean }).fails = true
  }
})

/** The names of the groups around a test and its own, with ` > ` between them. */
function fullName(task: { name: string; suite?: { name: string; suite?: unknown } }): string {
  const names = [task.name]
  for (let suite = task.suite; suite?.name; suite = suite.suite as typeof suite) names.unshift(suite.name)
  return names.join(' > ')
}
