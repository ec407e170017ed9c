// Loads a language model and prints what memory its process took at most, in bytes, above what it held before.
import { readFileSync, writeFileSync } from 'node:fs'
import { DecoderLM, ones } from 'voxtorch'

const [directory, options] = process.argv.slice(2)
const kibibytes = (field) =>
  Number(new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(readFileSync('/proc/self/status', 'utf8'))[1])

// Its first use loads libtorch.
ones([1]).dispose()
writeFileSync('/proc/self/clear_refs', '5')
const before = kibibytes('VmRSS')
const start = performance.now()
const model = await DecoderLM.fromPretrained(directory, JSON.parse(options))
const milliseconds = performance.now() - start
const peak = (kibibytes('VmHWM') - before) * 1024
const state = Object.values(model.stateDict())
const sizes = { float16: 2, bfloat16: 2, float32: 4, int8: 1, uint8: 1 }
const bytes = state.reduce((sum, tensor) => sum + tensor.numel() * sizes[tensor.dtype], 0)
console.log(JSON.stringify({ peak, bytes, milliseconds }))
