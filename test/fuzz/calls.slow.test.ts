import { expect, test } from 'vitest'
import { fuzz } from './run.js'

// A few generated calls of every public function, in child processes; `node --import tsx test/fuzz/main.ts` makes a
// thousand of each.
test('wrong calls give typed errors, right calls succeed, nothing crashes, hangs or leaks', async () => {
  const { results, findings } = await fuzz({
    seed: 1,
    calls: 3,
    attempts: 100,
    samples: 2,
    batch: 400,
    onProgress() {},
  })
  expect(findings).toEqual([])
  expect(results.length).toBeGreaterThan(1000)
  // A target that no call gets right would test nothing but its argument checks.
  const never = results.filter(({ samples }) => samples === 0).map(({ name }) => name)
  expect(never.length).toBeLessThan(20)
})
