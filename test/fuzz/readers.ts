/**
 * Broken files: `node --import tsx test/fuzz/readers.ts [--target NAME]... [--inputs 1000000] [--seed 1]
 * [--findings FOLDER]` feeds every reader of test/fuzz/targets, or those named, with mutated files in child processes
 * and lists what is neither a result nor a typed error.
 */
import { parseArgs } from 'node:util'
import { fuzzReaders } from './reader-run.js'

const { values } = parseArgs({
  options: {
    target: { type: 'string', multiple: true },
    inputs: { type: 'string', default: '100000' },
    seed: { type: 'string', default: '1' },
    findings: { type: 'string' },
  },
})

const results = await fuzzReaders({
  seed: Number(values.seed),
  inputs: Number(values.inputs),
  ...(values.target === undefined ? {} : { targets: values.target }),
  ...(values.findings === undefined ? {} : { findings: values.findings }),
})
for (const { target, inputs, accepted, errors, covered, corpus, slowest, seconds, findings } of results) {
  console.log(
    `${target}: ${inputs} inputs in ${seconds.toFixed(0)} s (${Math.round(inputs / seconds)} a second), ${accepted} read, ` +
      `errors ${JSON.stringify(errors)}, slowest ${slowest.toFixed(0)} ms, corpus ${corpus}, ${covered} characters reached, ` +
      `${findings.length} findings`,
  )
  for (const { kind, message, input } of findings) console.log(`  ${kind}: ${message}\n  ${input.slice(0, 2000)}`)
}
process.exitCode = results.some(({ findings }) => findings.length > 0) ? 1 : 0
