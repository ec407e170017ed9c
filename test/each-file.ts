import { appendFileSync } from 'node:fs'
import { beforeEach, expect } from 'vitest'

// What runs before every test file, in its own process.

const path = expect.getState().testPath ?? ''

// Random numbers are the same in every run, whatever else of a file runs with a test, so that no number drawn decides
// whether a test passes. Not where loading the library is itself under test.
if (!/\/test\/(setup|native)\//.test(path)) {
  const { manualSeed } = await import('../lib/index.js')
  manualSeed(0)
  beforeEach(() => manualSeed(0))
}

// `npm run test:cpus` asks how much of its tolerance each comparison used.
const margins = process.env.VOXTORCH_TEST_MARGINS
if (margins) {
  const note = (found: unknown, tolerance: number) => {
    if (typeof found !== 'number' || !(tolerance > 0 && tolerance <= 0.05)) return
    const { currentTestName } = expect.getState()
    appendFileSync(margins, `${JSON.stringify({ share: found / tolerance, tolerance, test: currentTestName, path })}\n`)
  }
  const below = (strict: boolean) => (found: number, limit: number) => {
    note(found, limit)
    return { pass: strict ? found < limit : found <= limit, message: () => `expected ${found} to be below ${limit}` }
  }
  expect.extend({
    toBeLessThan: below(true),
    toBeLessThanOrEqual: below(false),
    toBeCloseTo(found: number, wanted: number, digits = 2) {
      const [error, tolerance] = [Math.abs(found - wanted), 10 ** -digits / 2]
      note(error, tolerance)
      return {
        pass: Object.is(found, wanted) || error < tolerance,
        message: () => `expected ${found} to be close to ${wanted}, ${digits} digits`,
      }
    },
  })
}
