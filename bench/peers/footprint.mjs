import { readFileSync, writeFileSync } from 'node:fs'
import { DecoderLM } from 'voxtorch'
import { serve } from './serve.mjs'

const kibibytes = (field) =>
  Number(new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(readFileSync('/proc/self/status', 'utf8'))[1])
const sizes = { float16: 2, bfloat16: 2, float32: 4, int8: 1, uint8: 1 }

await serve(async ({ path, options }) => {
  writeFileSync('/proc/self/clear_refs', '5')
  const before = kibibytes('VmRSS')
  const start = performance.now()
  const model = await DecoderLM.fromPretrained(path, options)
  const milliseconds = performance.now() - start
  const peak = (kibibytes('VmHWM') - before) * 1024
  const bytes = Object.values(model.stateDict()).reduce((sum, one) => sum + one.numel() * sizes[one.dtype], 0)
  return { milliseconds, peak, bytes }
})
