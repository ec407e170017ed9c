/**
 * Bad calls: `node --import tsx test/fuzz/main.ts --calls 1000 [--only REGEX] [--seed N] [--out FILE]` makes generated
 * calls of every public function in child processes and lists errors that are not typed.
 */
import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { fuzz } from './run.js'

const { values } = parseArgs({
  options: {
    calls: { type: 'string', default: '1000' },
    attempts: { type: 'string', default: '600' },
    samples: { type: 'string', default: '8' },
    seed: { type: 'string', default: '1' },
    batch: { type: 'string', default: '40' },
    only: { type: 'string' },
    out: { type: 'string' },
  },
})

const begin = Date.now()
const { results, findings } = await fuzz({
  seed: Number(values.seed),
  calls: Number(values.calls),
  attempts: Number(values.attempts),
  samples: Number(values.samples),
  batch: Number(values.batch),
  ...(values.only === undefined ? {} : { only: new RegExp(values.only) }),
  onProgress(done, total, found) {
    for (const { target, kind, call, text, message } of found) {
      console.log(`\n${kind}: ${target} call ${call}\n  ${text.slice(0, 1000)}\n  ${message.slice(0, 600)}`)
    }
    console.log(`${Math.round((Date.now() - begin) / 1000)} s: ${done} of ${total} functions`)
  },
})

const errors: Record<string, number> = {}
let calls = 0
let succeeded = 0
let valid = 0
for (const result of results) {
  calls += result.calls
  succeeded += result.succeeded
  valid += result.validCalls
  for (const [name, count] of Object.entries(result.errors)) errors[name] = (errors[name] ?? 0) + count
}
const kinds: Record<string, number> = {}
for (const { kind } of findings) kinds[kind] = (kinds[kind] ?? 0) + 1
const none = results.filter(({ samples }) => samples === 0).map(({ name }) => name)

console.log(
  `\n${results.length} functions, ${calls} calls in ${Math.round((Date.now() - begin) / 1000)} s: ${succeeded} succeeded (${valid} replayed as valid)`,
)
console.log(`errors: ${JSON.stringify(errors)}`)
console.log(`findings: ${JSON.stringify(kinds)}`)
console.log(`no right call was found for ${none.length}: ${none.join(' ')}`)
const slow = results
  .filter(({ slowest }) => slowest > 2000)
  .map(({ name, slowest }) => `${name} ${Math.round(slowest)} ms`)
if (slow.length > 0) console.log(`slow: ${slow.join(', ')}`)
if (values.out !== undefined) writeFileSync(values.out, JSON.stringify({ results, findings }, null, 1))
process.exitCode = findings.length > 0 ? 1 : 0
